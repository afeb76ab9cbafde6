"""The function's interrupts as the client has them: an eventfd for each vector, and a level that it looks at again.

vfio-user knows vectors, functions send messages. So each MSI-X table entry is the server's: its message is its vector,
and it is masked while the vector has no eventfd, which keeps pending bits where the guest reads them. A queue's call is
bound to such a message, as to a hypervisor's: it goes to the client's eventfd on an I/O loop, without Python.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.device import AUTOMASKED, EVENTFD, INTX, KINDS, MASKABLE, MSI, MSIX
from acrn_dm.backends.wire.vfio_user.message import Refused
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import signal
from acrn_dm.base.events.io_threads import SHARED
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.export.vfio_user._calls import CallRelay, Signaller
from acrn_dm.export.vfio_user.parsing import IrqRequest
from acrn_dm.pci import config_space as cs
from acrn_dm.pci import msi, msix
from acrn_dm.pci.function import PciFunction

log = logging.getLogger(__name__)

OURS = 1 << 32  # address of our messages: the entries' own, which a client can't write
EVENTFD_LINK = "anon_inode:[eventfd]"
MAX_CAPABILITIES = 48


class Irqs:
    """The interrupts of *function*; also its ``InterruptSink``. Requests come on the main loop, interrupts from any
    thread. Calls are passed on by the shared one of *io_loop*.
    """

    def __init__(self, function: PciFunction, io_loop: Callable[[str], IoLoop]) -> None:
        self._function = function
        self._io_loop = io_loop
        self._signaller = _signaller()
        self._relays: dict[int, CallRelay] = {}  # by the call's descriptor
        self._guard = threading.Lock()  # a leaf: taken below the vectors' own
        self._fds: dict[tuple[int, int], int] = {}
        self._pending: set[tuple[int, int]] = set()  # sent in the moment before the client gave an eventfd
        self._level = self._masked = False

    def info(self, index: int) -> tuple[int, int]:
        """Flags and number of the interrupts of kind *index*. Raises Refused."""
        if index >= KINDS:
            raise Refused(f"there is no kind {index} of interrupts")
        flags = (
            EVENTFD | MASKABLE | AUTOMASKED if index == INTX else EVENTFD
        )  # without NORESIZE: vectors come one by one
        function = self._function
        vectors = {MSI: function.msi, MSIX: function.msix}.get(index)
        count = int(function.intx is not None) if index == INTX else vectors.vectors if vectors is not None else 0
        return flags, count

    def apply(self, request: IrqRequest, fds: list[int]) -> None:
        """DEVICE_SET_IRQS; takes all *fds* that it uses out of the list. Raises Refused."""
        _, count = self.info(request.index)
        if request.start + request.count > count:
            raise Refused(f"interrupts {request.start} to {request.start + request.count} of {count}")
        which = range(request.start, request.start + request.count)
        if request.data == wire.DATA_BOOL:
            which_chosen = [v for v, chosen in zip(which, request.chosen, strict=True) if chosen]
        else:
            which_chosen = list(which)
        if request.action != wire.ACTION_TRIGGER:
            self._mask(request, which_chosen)
        elif request.data == wire.DATA_EVENTFD:
            self._assign(request.index, which_chosen, fds)
        elif not request.count:
            self._disable(request.index)
        else:
            self._trigger(request.index, which_chosen)

    def inject_msi(self, message: MsiMessage) -> None:
        """A vector is raised: the one that our message says, or the one of MSI."""
        key = (MSIX, message.data) if message.addr == OURS else (MSI, 0)
        with self._guard:
            if not self._signal(key):
                self._pending.add(key)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """The pin has another level."""
        with self._guard:
            self._level = asserted
            self._look()

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Nothing to do: kicks come as register writes, which the device is told of."""

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """A call of a queue's; the vector has an eventfd, for its entry is masked else. Raises HostError."""
        loop = self._io_loop(SHARED)
        if assign:
            relay = self._relays[binding.fd] = self._relay(binding)
            loop.call_soon(lambda: relay.watch(loop.poll))
        elif binding.fd in self._relays:
            relay = self._relays.pop(binding.fd)
            relay.end()
            loop.call_soon(lambda: relay.unwatch(loop.poll))

    def _relay(self, binding: IrqFd) -> CallRelay:
        target = binding.target
        if not isinstance(target, MsiMessage) or target.addr != OURS:
            raise HostError("only vectors of MSI-X have eventfds of their own")
        fd = self._fds.get((MSIX, target.data))
        if fd is None:
            raise HostError("the client gave no eventfd")
        if self._signaller is None:
            raise HostError("interrupts are passed on without asynchronous I/O")
        try:
            return CallRelay(self._signaller, binding.fd, fd)
        except OSError as e:
            raise HostError.from_os("passing interrupts on", e) from e

    def restore(self) -> None:
        """The function was reset, and its table with it: vectors with eventfds have their messages again."""
        for index, vector in list(self._fds):
            if index == MSIX:
                self._write_entry(vector, masked=False)

    def forget(self) -> None:
        """The client is gone."""
        for index in (INTX, MSI, MSIX):
            self._release([key for key in self._fds if key[0] == index])
        with self._guard:
            self._pending.clear()
            self._masked = False

    def _assign(self, index: int, which: Sequence[int], fds: list[int]) -> None:
        """Eventfds for the vectors of *which*, or, without any, none for them. Raises Refused."""
        if not fds:
            self._release([(index, vector) for vector in which])
            return
        if any(os.readlink(f"/proc/self/fd/{fd}") != EVENTFD_LINK for fd in fds):
            raise Refused("a descriptor is no eventfd")
        if index != INTX:
            self._enable(index, True)
        for vector in which:
            self._give(index, vector, fds.pop(0))

    def _give(self, index: int, vector: int, fd: int) -> None:
        key = index, vector
        if index == MSIX and key in self._fds:
            self._write_entry(vector, masked=True)  # nothing is on the way to the one that goes
        with self._guard:
            old, self._fds[key] = self._fds.get(key), fd
            if index == INTX:
                self._masked = False
                self._look()
            elif key in self._pending:
                self._pending.discard(key)
                self._signal(key)
        if old is not None:
            os.close(old)
        if index == MSIX:
            self._write_entry(vector, masked=False)

    def _release(self, keys: Sequence[tuple[int, int]]) -> None:
        for index, vector in keys:
            if index == MSIX:
                self._write_entry(vector, masked=True)
            with self._guard:
                old = self._fds.pop((index, vector), None)
            if old is not None:
                os.close(old)

    def _disable(self, index: int) -> None:
        self._release([key for key in self._fds if key[0] == index])
        if index in (MSI, MSIX):
            self._enable(index, False)
            with self._guard:
                self._pending = {key for key in self._pending if key[0] != index}

    def _trigger(self, index: int, which: Sequence[int]) -> None:
        """The client tries its own eventfds."""
        with self._guard:
            for vector in which:
                self._signal((index, vector))

    def _mask(self, request: IrqRequest, which: Sequence[int]) -> None:
        """MASK and UNMASK, of the pin. Raises Refused."""
        if request.index != INTX or request.data == wire.DATA_EVENTFD:
            raise Refused("only the pin is masked, and by messages", errno.ENOTSUP)
        with self._guard:
            if which:
                self._masked = request.action == wire.ACTION_MASK
                self._look()

    def _look(self) -> None:
        """Tell the client of an asserted pin once; it says when it wants to hear of it again. Guard held."""
        if self._level and not self._masked:
            self._masked = self._signal((INTX, 0))

    def _signal(self, key: tuple[int, int]) -> bool:
        """Whether there is an eventfd. Guard held."""
        fd = self._fds.get(key)
        if fd is not None:
            signal(fd)
        return fd is not None

    def _write_entry(self, vector: int, *, masked: bool) -> None:
        table, at = self._function.msix, vector * msix.ENTRY_SIZE
        if table is None:
            return
        with self._function.lock:
            if masked:
                table.write(at + 12, 4, msix.MASKED)
            else:
                table.write(at, 8, OURS)
                table.write(at + 8, 8, vector)

    def _enable(self, index: int, on: bool) -> None:
        """What clients that keep the control register to themselves leave to us."""
        bit = msi.CONTROL_ENABLE if index == MSI else msix.CONTROL_ENABLE
        function = self._function
        with function.lock:
            at = _capability(function, msi.CAPABILITY_ID if index == MSI else msix.CAPABILITY_ID) + 2
            control = function.config_read(at, 2)
            if bool(control & bit) != on:
                function.config_write(at, 2, control ^ bit)


def _signaller() -> Signaller | None:
    try:
        return Signaller()
    except OSError as e:
        log.info("interrupts pass through Python: %s", e)
        return None


def _capability(function: PciFunction, wanted: int) -> int:
    """Where the capability *wanted* begins; the function has it."""
    at = function.config.read(cs.CAPABILITIES, 1)
    for _ in range(MAX_CAPABILITIES):
        if function.config.read(at, 1) == wanted:
            return at
        at = function.config.read(at + 1, 1)
    raise Refused(f"there is no capability {wanted:#x}")
