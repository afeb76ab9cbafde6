"""Eventfds that follow the guest: kicks bound to where a notify register is, calls bound to what a vector sends.

Both exist from the moment a queue starts until it stops. A binding is a registration with the hypervisor, through the
machine's two hooks; where it fails the way through this process does the same, slower, and ``refused`` is told once per
event.

Locks: a ``CallEvent`` takes its own lock and, below it, the vectors' leaf lock. Nothing here takes a function's lock,
so that the thread that completes a request may signal.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import SIGNALLED, UNWATCHED, drain, signal
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import EventFdRegistry, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.base.records import frozen
from acrn_dm.pci.vectors import NO_VECTOR, MessageVectors, Watch

log = logging.getLogger(__name__)

Refused = Callable[[HostError], None]


def make_eventfd() -> int:
    """A non-blocking eventfd with count 0. Raises HostError."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError as e:
        raise HostError.from_os("making an eventfd", e, "raise the limit of open files (ulimit -n)") from e


@frozen(kw_only=True)
class KickAddress:
    """The guest write that is a kick: see ``base.irq.IoEventFd``."""

    space: Space
    addr: int = attrs.field(repr=hex)
    len: int
    datamatch: int | None = None


class KickEvent:
    """A queue's kick. Control threads only, under the function's lock; whoever serves the queue waits on ``fd``, which
    is *fd* if that is given.
    """

    def __init__(self, registry: EventFdRegistry, refused: Refused, fd: int = -1) -> None:
        self.fd = make_eventfd() if fd < 0 else fd
        self._registry = registry
        self._refused = refused
        self._binding: IoEventFd | None = None
        self._wanted: KickAddress | None = None

    def bind(self, address: KickAddress | None) -> None:
        """Follow the notify register to *address*; None: it is nowhere. A refused binding is not tried again there."""
        if address == self._wanted:
            return
        self._wanted = address
        self._unbind()
        if address is None:
            return
        place = attrs.asdict(address)
        binding = IoEventFd(fd=self.fd, **place)
        try:
            self._registry.ioeventfd(binding, True)
        except HostError as e:
            self._refused(e)
        else:
            self._binding = binding

    def signal(self) -> None:
        """Do what a kick does; the way without a binding."""
        signal(self.fd)

    def close(self) -> None:
        """Unbind and close. Idempotent."""
        if self.fd >= 0:
            self.bind(None)
            os.close(self.fd)
            self.fd = -1

    def _unbind(self) -> None:
        if self._binding is not None:
            binding, self._binding = self._binding, None
            _unregister(lambda: self._registry.ioeventfd(binding, False))


class CallEvent:
    """A queue's call: an eventfd bound to the message of an MSI-X (or MSI) vector while that vector is deliverable.

    ``signal`` always interrupts: through the eventfd while it is bound, else through the vector (which keeps a masked
    interrupt pending), else, with MSI-X disabled, by *without_msix*. A backend outside this process writes ``fd``
    itself; for that, ``forward`` watches the eventfd and passes on what nobody else takes.

    When a binding ends, everything that ``signal`` wrote has been delivered by the hypervisor, whether or not it took
    the count (KVM does since Linux 5.11, ACRN's HSM does not): the rest of the count is dropped. With a writer of its
    own the rest may be news, so it is raised again: spurious at worst, which drivers tolerate, but not lost.
    """

    private = True  # unless its descriptor is handed to somebody, who then serves the queue in our place

    def __init__(
        self, registry: EventFdRegistry, msix: MessageVectors | None, without_msix: Callable[[], None], refused: Refused
    ) -> None:
        self.fd = make_eventfd()
        self.vector = NO_VECTOR
        self._registry = registry
        self._msix = msix
        self._without_msix = without_msix
        self._refused = refused
        self._lock = threading.Lock()
        self._binding: IrqFd | None = None
        self._watch: Watch | None = None
        self._loop: IoLoop | None = None
        self._failed: Callable[[HostError], None] | None = None

    def set_vector(self, vector: int) -> None:
        """Follow MSI-X vector *vector* from now on. Control threads, under the function's lock."""
        if self._msix is None or self.fd < 0:
            return
        if self._watch is not None:
            self._msix.unwatch(self._watch)
            self._watch = None
        with self._lock:
            self._release()
            self.vector = vector
        if vector != NO_VECTOR:
            self._watch = self._msix.watch(vector, self._follow)
        self._follow()

    def signal(self) -> None:
        """Interrupt the driver. Any thread."""
        with self._lock:
            if self.fd < 0:
                return
            if self._binding is None:
                self._deliver()
            elif self._loop is not None:  # others write it, too
                signal(self.fd)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self.fd, 1)

    def forward(self, loop: IoLoop, failed: Callable[[HostError], None] | None = None) -> None:
        """Let *loop*, whose handlers take no function's lock, pass on writes to ``fd`` while it is not bound.

        *failed* is called on the loop when an interrupt can't be delivered. Once is enough for the life of the call.
        """
        with self._lock:
            self._failed = failed
            if self._loop is loop:
                return
            self._loop = loop
            loop.add(self.fd, self._forward, events=UNWATCHED if self._binding is not None else SIGNALLED)

    def close(self) -> None:
        """Unbind and close; nothing is delivered afterwards, not even what was signalled before. Idempotent."""
        if self.fd < 0:
            return
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove(self.fd)
        if self._msix is not None and self._watch is not None:
            self._msix.unwatch(self._watch)
        with self._lock:
            self._unbind()
            os.close(self.fd)
            self.fd = -1

    def _follow(self) -> None:
        """The vector's message may have changed: bind to what it is now."""
        with self._lock:
            if self.fd < 0 or self._msix is None:
                return
            message = self._msix.message(self.vector)
            if self._binding is not None and self._binding.target == message:
                return
            self._release()
            if message is not None:
                self._bind(message)

    def _bind(self, message: MsiMessage) -> None:
        binding = IrqFd(fd=self.fd, target=message)
        try:
            self._registry.irqfd(binding, True)
        except HostError as e:
            self._refused(e)
        else:
            self._binding = binding
            self._listen(UNWATCHED)  # whoever it is bound to may leave the count as it is: the loop would spin

    def _release(self) -> None:
        if self._binding is not None:
            self._unbind()
            if drain(self.fd) and self._loop is not None:
                self._deliver()

    def _unbind(self) -> None:
        if self._binding is not None:
            binding, self._binding = self._binding, None
            _unregister(lambda: self._registry.irqfd(binding, False))
            self._listen(SIGNALLED)

    def _listen(self, events: int) -> None:
        if self._loop is not None:
            self._loop.modify(self.fd, events)

    def _deliver(self) -> None:
        if self._msix is not None and self._msix.enabled:
            self._msix.raise_vector(self.vector)
        else:
            self._without_msix()

    def _forward(self) -> None:
        try:
            with self._lock:
                if self.fd >= 0 and self._binding is None and drain(self.fd):
                    self._deliver()
        except HostError as e:
            if self._failed is None:
                raise
            self._failed(e)


def _unregister(call: Callable[[], None]) -> None:
    try:
        call()
    except HostError as e:  # the hypervisor forgot it by itself, as after its own reset
        log.debug("unregistering: %s", e)
