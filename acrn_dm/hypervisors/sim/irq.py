"""The eventfds and interrupts of a simulated machine, with the rules of Linux KVM (virt/kvm/eventfd.c).

A binding keeps a duplicate of the eventfd, as the kernel keeps a reference: closing a bound fd is a leak, not a crash.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import drain, signal
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.base.records import define, frozen
from acrn_dm.hypervisors.kick_index import ANY_LENGTH, KickIndex

Tell = Callable[[object], None]

LENGTHS = (ANY_LENGTH, 1, 2, 4, 8)


@frozen(kw_only=True)
class LineChange:
    """One change of a GSI's level, as the guest's IOAPIC sees it."""

    gsi: int
    asserted: bool


def require_eventfd(fd: int, call: str) -> None:
    """Raise HostError unless *fd* is one: EBADF, or EINVAL for another kind of file."""
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}")
    except OSError as e:
        raise HostError(call, err=errno.EBADF, hint="the eventfd is closed") from e
    if "eventfd" not in kind:
        raise HostError(call, err=errno.EINVAL, hint="only an eventfd can be bound")


def own_eventfd(fd: int, call: str) -> int:
    """Return our own descriptor of the eventfd *fd*. Raises HostError."""
    require_eventfd(fd, call)
    return os.dup(fd)


def consume(fd: int) -> bool:
    """Read the eventfd if it is signalled, without waiting whatever its flags are; return whether it was."""
    return bool(drain(fd))


@define(eq=False)
class KickTable:
    """The ioeventfds of a machine."""

    tell: Tell  # of each kick
    _own: dict[IoEventFd, int] = attrs.field(factory=dict, init=False)  # in the order of registration
    _index: KickIndex = attrs.field(factory=KickIndex, init=False)

    @property
    def bindings(self) -> list[IoEventFd]:
        """In the order of registration."""
        return list(self._own)

    def assign(self, binding: IoEventFd) -> None:
        """Register. Raises HostError: EINVAL, EBADF, EEXIST."""
        problem = _malformed(binding)
        if problem is not None:
            raise HostError("ioeventfd", err=errno.EINVAL, hint=problem)
        if self._index.collides(binding):
            raise HostError("ioeventfd", err=errno.EEXIST, hint="an ioeventfd claims this address already")
        self._own[binding] = own_eventfd(binding.fd, "ioeventfd")
        self._index.add(binding)

    def deassign(self, binding: IoEventFd) -> None:
        """Unregister exactly this binding. Raises HostError: ENOENT, EBADF for an fd that was closed too early."""
        require_eventfd(binding.fd, "ioeventfd")
        if binding not in self._own:
            raise HostError("ioeventfd", err=errno.ENOENT, hint="no ioeventfd like this is registered")
        self._drop(binding)

    def signal(self, space: Space, addr: int, size: int, value: int) -> bool:
        """Signal the eventfd that claims this write, if any; return whether one does."""
        binding = self._index.find(space, addr, size, value)
        if binding is None:
            return False
        self.tell(binding)
        signal(self._own[binding])
        return True

    def clear(self) -> None:
        """Forget all bindings."""
        for binding in tuple(self._own):
            self._drop(binding)

    def _drop(self, binding: IoEventFd) -> None:
        os.close(self._own.pop(binding))
        self._index.remove(binding)


def _malformed(binding: IoEventFd) -> str | None:
    if binding.len not in LENGTHS:
        return "the length has to be 0, 1, 2, 4 or 8"
    if binding.len == ANY_LENGTH and binding.datamatch is not None:
        return "a binding of any length can't have a value to match"
    if binding.addr + binding.len > 1 << 64:
        return "the range wraps around"
    return None


@define(eq=False)
class InterruptController:
    """The taker of MSIs and line levels; the guest's view is ``msis``, ``level`` and ``changes``.

    A line is the OR of what ``set_line`` said and what an irqfd with a resample fd raised. An irqfd without one, bound
    to a line, is a pulse: the level rises and falls.
    """

    pins: int
    tell: Tell  # of each MSI and each change of a line
    pass_on: Callable[[MsiMessage], list[MsiMessage]] = lambda message: [message]
    msis: list[MsiMessage] = attrs.field(factory=list)  # every MSI ever delivered
    changes: list[LineChange] = attrs.field(factory=list)
    # In the order of registration: our fd, our resample fd.
    _own: dict[IrqFd, tuple[int, int | None]] = attrs.field(factory=dict, init=False)
    _by_fd: dict[int, IrqFd] = attrs.field(factory=dict, init=False)
    _pending: list[MsiMessage] = attrs.field(factory=list, init=False)
    _set: set[int] = attrs.field(factory=set, init=False)  # GSIs asserted by set_line
    _until_eoi: set[int] = attrs.field(factory=set, init=False)  # GSIs that an irqfd asserted

    @property
    def bindings(self) -> list[IrqFd]:
        """In the order of registration."""
        return list(self._own)

    def deliver(self, message: MsiMessage) -> None:
        """Take an MSI, or what a test lets arrive in its place."""
        for arrived in self.pass_on(message):
            self.arrive(arrived)

    def arrive(self, message: MsiMessage) -> None:
        """An MSI is there."""
        self.msis.append(message)
        self.tell(message)
        self._pending.append(message)

    def take_msis(self) -> list[MsiMessage]:
        """Return the MSIs that arrived since the last call, in order; irqfds are looked at first."""
        self.poll()
        taken, self._pending = self._pending, []
        return taken

    def level(self, gsi: int) -> bool:
        """Return the level of a line; irqfds are looked at first."""
        self.poll()
        return self._level(gsi)

    def set_line(self, gsi: int, asserted: bool) -> None:
        """Set a line's level as a device asks. Raises ValueError for no line."""
        if not 0 <= gsi < self.pins:
            raise ValueError(f"GSI {gsi} is no IOAPIC pin")
        with self._edge(gsi):
            (self._set.add if asserted else self._set.discard)(gsi)

    def eoi(self, gsi: int) -> None:
        """The guest acknowledges: irqfds let go of the line and their resample fds are signalled."""
        self.poll()
        with self._edge(gsi):
            self._until_eoi.discard(gsi)
        for binding, (_, resample) in self._own.items():
            if binding.target == IntxLine(gsi=gsi) and resample is not None:
                signal(resample)

    def assign(self, binding: IrqFd) -> None:
        """Register. Raises HostError: EBUSY for an eventfd in use, EINVAL, EBADF."""
        if binding.fd in self._by_fd:
            raise HostError("irqfd", err=errno.EBUSY, hint="the eventfd is bound to an interrupt already")
        own = own_eventfd(binding.fd, "irqfd")
        try:
            resample = None if binding.resample_fd is None else own_eventfd(binding.resample_fd, "irqfd")
        except HostError:
            os.close(own)
            raise
        self._own[binding] = (own, resample)
        self._by_fd[binding.fd] = binding

    def deassign(self, binding: IrqFd) -> None:
        """Unregister; a signal that arrived before is delivered. Raises HostError: ENOENT, EBADF as for kicks."""
        require_eventfd(binding.fd, "irqfd")
        found = self._by_fd.get(binding.fd)
        if found is None or found.target != binding.target:
            raise HostError("irqfd", err=errno.ENOENT, hint="no irqfd like this is registered")
        self._look_at(found)
        self._drop(found)

    def poll(self) -> None:
        """Look at every irqfd and take what was signalled."""
        for binding in self._own:
            self._look_at(binding)

    def clear(self) -> None:
        """As after power-on: no bindings, no levels, nothing pending. What was recorded stays."""
        for binding in tuple(self._own):
            self._drop(binding)
        self._pending.clear()
        self._set.clear()
        self._until_eoi.clear()

    def _drop(self, binding: IrqFd) -> None:
        del self._by_fd[binding.fd]
        for fd in self._own.pop(binding):
            if fd is not None:
                os.close(fd)
        target = binding.target
        if isinstance(target, IntxLine) and not any(
            b.target == target and b.resample_fd is not None for b in self._own
        ):
            with self._edge(target.gsi):
                self._until_eoi.discard(target.gsi)

    def _look_at(self, binding: IrqFd) -> None:
        own, resample = self._own[binding]
        if not consume(own):
            return
        target = binding.target
        if isinstance(target, MsiMessage):
            self.deliver(target)
        elif resample is not None:
            with self._edge(target.gsi):
                self._until_eoi.add(target.gsi)
        else:
            self._pulse(target.gsi)

    def _pulse(self, gsi: int) -> None:
        if not self._level(gsi):
            self._change(gsi, True)
            self._change(gsi, False)

    def _change(self, gsi: int, asserted: bool) -> None:
        change = LineChange(gsi=gsi, asserted=asserted)
        self.changes.append(change)
        self.tell(change)

    def _level(self, gsi: int) -> bool:
        return gsi in self._set or gsi in self._until_eoi

    @contextmanager
    def _edge(self, gsi: int) -> Iterator[None]:
        """Record whether what happens inside changes the level of a line."""
        before = self._level(gsi)
        yield
        if self._level(gsi) != before:
            self._change(gsi, not before)
