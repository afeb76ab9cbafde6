"""Kicks and calls bound in ACRN's kernel module, with the hypervisors' contract kept on top of the module's own rules.

The module accepts two eventfds for one write (the first found wins), finds a kick to remove by its eventfd alone, and
says nothing about one it does not know (Linux drivers/virt/acrn/ioeventfd.c, irqfd.c). What it does with a claimed
address can't be changed from here: reads give 0, a write of another value vanishes, one of fewer bytes counts as a
kick; only longer accesses come to the device model. It never takes an eventfd's count.
"""

import errno
import logging

import attrs

from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.base.records import define
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import Port
from acrn_dm.hypervisors.acrn.module.errors import failed
from acrn_dm.hypervisors.kick_index import KickIndex

log = logging.getLogger(__name__)

LONGEST = 8  # a binding of any length: shorter writes count, too
ASYNCHRONOUS = 64  # kicks of one virtual machine that the hypervisor takes itself (its ACRN_ASYNCIO_MAX)


@define(eq=False)
class Bindings:
    """All bindings of one virtual machine. Not locked: the owner is."""

    port: Port
    asyncio: bool = False  # the hypervisor can put kicks into a buffer instead of making the vCPU wait
    _kicks: dict[IoEventFd, int] = attrs.field(factory=dict)  # with the flags each was made with
    _index: KickIndex = attrs.field(factory=KickIndex)
    _by_fd: dict[int, set[IoEventFd]] = attrs.field(factory=dict)
    _asynchronous: int = 0  # of the kicks
    _full_said: bool = False
    _calls: dict[int, MsiMessage] = attrs.field(factory=dict)

    def assign_kick(self, binding: IoEventFd) -> None:
        """Register. Raises HostError: EINVAL, EBADF, EEXIST."""
        if binding.len == 0 and binding.datamatch is not None:
            raise failed("IOEVENTFD", errno.EINVAL)
        if self._index.collides(binding):
            raise failed("IOEVENTFD", errno.EEXIST)
        self._add(binding)

    def deassign_kick(self, binding: IoEventFd) -> None:
        """Unregister exactly this binding. Raises HostError: ENOENT, EBADF for an fd that was closed too early.

        The module removes one of the eventfd's bindings, whichever: so all of them go, and the others come back.
        """
        if binding not in self._kicks:
            raise failed("IOEVENTFD", errno.ENOENT)
        others = [b for b in self._by_fd[binding.fd] if b != binding]
        for each in (binding, *others):
            flags = self._kicks[each] | _hsm.IOEVENTFD_DEASSIGN
            self.port.call("IOEVENTFD", _encode(each, flags))
            self._remove(each)
        for each in others:
            self._add(each)

    def assign_call(self, binding: IrqFd) -> None:
        """Register. Raises HostError: EBUSY for an eventfd in use, EINVAL for a line, EBADF."""
        target = binding.target
        if not isinstance(target, MsiMessage):
            raise failed("IRQFD", errno.EINVAL)
        self.port.call("IRQFD", _hsm.irqfd(binding.fd, target.addr, target.data, True))
        self._calls[binding.fd] = target

    def deassign_call(self, binding: IrqFd) -> None:
        """Unregister. Raises HostError: ENOENT, EBADF."""
        target = binding.target
        if self._calls.get(binding.fd) != target or not isinstance(target, MsiMessage):
            raise failed("IRQFD", errno.ENOENT)
        self.port.call("IRQFD", _hsm.irqfd(binding.fd, target.addr, target.data, False))
        del self._calls[binding.fd]

    def clear(self) -> None:
        """Unregister everything: the module keeps its bindings when the virtual machine is reset."""
        for binding, flags in self._kicks.items():
            self._forget("IOEVENTFD", _encode(binding, flags | _hsm.IOEVENTFD_DEASSIGN))
        for fd, target in self._calls.items():
            self._forget("IRQFD", _hsm.irqfd(fd, target.addr, target.data, False))
        self._kicks.clear()
        self._index.clear()
        self._by_fd.clear()
        self._asynchronous = 0
        self._calls.clear()

    def _add(self, binding: IoEventFd) -> None:
        flags = self._register(binding)
        self._kicks[binding] = flags
        self._index.add(binding)
        self._by_fd.setdefault(binding.fd, set()).add(binding)
        self._asynchronous += bool(flags & _hsm.IOEVENTFD_ASYNCIO)

    def _remove(self, binding: IoEventFd) -> None:
        self._asynchronous -= bool(self._kicks.pop(binding) & _hsm.IOEVENTFD_ASYNCIO)
        self._index.remove(binding)
        of_fd = self._by_fd[binding.fd]
        of_fd.remove(binding)
        if not of_fd:
            del self._by_fd[binding.fd]

    def _register(self, binding: IoEventFd) -> int:
        """Bind and return the flags that did it.

        Asynchronous kicks are for registers that any write kicks: older kernels ignore the value to match with them,
        so that every queue of a legacy device would be the first one. Where the hypervisor has no room left, the kick
        is an ordinary one, for which the vCPU waits until the module has seen it.
        """
        flags = _hsm.IOEVENTFD_PIO if binding.space is Space.PIO else 0
        if binding.datamatch is not None:
            flags |= _hsm.IOEVENTFD_DATAMATCH
        elif self.asyncio and binding.space is Space.MMIO and self._room(binding):
            result = self.port.attempt("IOEVENTFD", _encode(binding, flags | _hsm.IOEVENTFD_ASYNCIO))
            if result >= 0:
                return flags | _hsm.IOEVENTFD_ASYNCIO
        self.port.call("IOEVENTFD", _encode(binding, flags))
        return flags

    def _room(self, binding: IoEventFd) -> bool:
        """Whether the hypervisor takes one more kick; the first time that it does not is worth a line."""
        if self._asynchronous < ASYNCHRONOUS:
            return True
        if not self._full_said:
            self._full_said = True
            log.warning(
                "the hypervisor's %d asynchronous kicks are all in use: at %#x and for what comes after it, vCPUs wait "
                "for the kernel module at each kick (fewer queues or ports help)",
                ASYNCHRONOUS,
                binding.addr,
            )
        return False

    def _forget(self, name: str, argument: bytearray) -> None:
        result = self.port.attempt(name, argument)
        if result < 0:
            log.debug("unregistering: %s", failed(name, -result))


def _encode(binding: IoEventFd, flags: int) -> bytearray:
    length = binding.len or LONGEST
    return _hsm.ioeventfd(binding.fd, flags, binding.addr, length, binding.datamatch or 0)
