"""The interrupts of a foreign function: eventfds that its server writes, and the way from there to the guest.

Message vectors get their eventfds when the guest switches messages on, masked ones too, for what comes meanwhile has to
be pending here; those after the first ``AT_ONCE`` when they are first unmasked. From then on they follow the guest's
registers as a virtio queue's call does (``pci.eventfds``): by an irqfd where the hypervisor has one, else through the
loop. Of the pin the server tells once, and again after UNMASK, which goes out with the guest's next access to a BAR:
that is how a driver finds out what the interrupt was for.

Servers may have one eventfd for the pin and the first vector (libvfio-user), so the pin's is taken before a vector's is
given, and given again when the guest has switched its messages off.
"""

import functools
import logging
import os
import threading

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.device import INTX
from acrn_dm.backends.wire.vfio_user.message import Command
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import EventFdRegistry
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.pci.eventfds import CallEvent, make_eventfd
from acrn_dm.pci.intx import IntxPin
from acrn_dm.pci.vectors import MessageVectors

log = logging.getLogger(__name__)

AT_ONCE = 64
GIVE, TAKE, UNMASK = (
    wire.DATA_EVENTFD | wire.ACTION_TRIGGER,
    wire.DATA_NONE | wire.ACTION_TRIGGER,
    wire.DATA_NONE | wire.ACTION_UNMASK,
)


def irq_set(flags: int, index: int, start: int, count: int) -> bytes:
    """The payload of DEVICE_SET_IRQS."""
    return wire.IRQ_SET.pack(wire.IRQ_SET.size, flags, index, start, count)


def tell(link: Link, payload: bytes, *fds: int) -> None:
    """DEVICE_SET_IRQS of *payload*; an error is the log's."""
    try:
        link.ask(Command.DEVICE_SET_IRQS, payload, fds)
    except HostError as e:  # the connection's end was told already
        if link.connected:
            log.warning("%s", e)


class VectorCalls:
    """The message vectors of kind *index* (MSI or MSI-X), of which the server has *count*. Control threads, under the
    function's lock.
    """

    def __init__(
        self,
        index: int,
        count: int,
        vectors: MessageVectors,
        *,
        pin: "PinCall | None",
        link: Link,
        loop: IoLoop,
        registry: EventFdRegistry,
    ) -> None:
        self._index = index
        self._vectors = vectors
        self._pin = pin
        self._link = link
        self._loop = loop
        self._registry = registry
        self._calls: dict[int, CallEvent] = {}
        self._begun = False  # the first ones were given
        self._count = min(count, vectors.vectors)
        for vector in range(AT_ONCE, self._count):
            vectors.watch(vector, functools.partial(self._changed, vector))

    @property
    def enabled(self) -> bool:
        """Whether the guest has its messages on."""
        return self._vectors.enabled

    def follow(self) -> None:
        """The guest has switched its messages on or off."""
        if self._vectors.enabled:
            self._begin()
        elif self._begun:
            self.forget()
            tell(self._link, irq_set(TAKE, self._index, 0, 0))

    def forget(self) -> None:
        """Nobody interrupts any more."""
        self._begun = False
        while self._calls:
            self._calls.popitem()[1].close()

    def _changed(self, vector: int) -> None:
        """The guest has masked or unmasked *vector*, or changed what it sends."""
        if vector not in self._calls and self._vectors.message(vector) is not None:
            self._begin()
            self._give(range(vector, vector + 1))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._give(range(min(self._count, AT_ONCE)))

    def _give(self, vectors: range) -> None:
        """Have the server signal *vectors*, as many in a message as it takes descriptors."""
        if not self._link.connected:
            return
        if self._pin is not None:
            self._pin.take()
        while vectors:
            some, vectors = vectors[: self._link.most_fds], vectors[self._link.most_fds :]
            try:
                fds = [self._made(vector).fd for vector in some]
            except HostError as e:
                log.warning("vectors from %d on are silent: %s", some.start, e)
                return
            tell(self._link, irq_set(GIVE, self._index, some.start, len(some)), *fds)

    def _made(self, vector: int) -> CallEvent:
        call = self._calls[vector] = CallEvent(self._registry, self._vectors, lambda: None, self._refused)
        call.set_vector(vector)
        call.forward(self._loop)
        return call

    def _refused(self, error: HostError) -> None:
        log.info("interrupts go through this process: %s", error)


class PinCall:
    """The interrupt *pin*, as its server drives it. Control threads, under the function's lock."""

    def __init__(self, pin: IntxPin, link: Link, loop: IoLoop) -> None:
        self._pin = pin
        self._link = link
        self._loop = loop
        self._guard = threading.Lock()
        self._given = self._asserted = False
        self._fd = make_eventfd()
        loop.add(self._fd, self._called, eventfd=True)

    def give(self) -> None:
        """The server may interrupt. Raises HostError."""
        if not self._given and self._link.connected:
            self._given = True
            self._link.ask(Command.DEVICE_SET_IRQS, irq_set(GIVE, INTX, 0, 1), (self._fd,))

    def take(self) -> None:
        """The server may not: the guest has other interrupts."""
        if self._given and self._link.connected:
            self._given = False
            tell(self._link, irq_set(TAKE, INTX, 0, 0))

    def acknowledge(self) -> None:
        """The guest has looked at the device: whether it still asks for an interrupt the server says anew. Raises
        HostError.
        """
        if self._asserted:
            self.release()
            self._link.post(Command.DEVICE_SET_IRQS, irq_set(UNMASK, INTX, 0, 1))

    def begin_anew(self) -> None:
        """The device was reset: what it said until then counts no more, and it has to be given its eventfd again."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            drain(self._fd)
            self.release()
            self._given = False
            self._loop.add(self._fd, self._called, eventfd=True)

    def release(self) -> None:
        """The device asks for nothing now, or is gone. Any thread."""
        with self._guard:
            self._asserted = False
            self._pin.set(False)

    def close(self) -> None:
        """Nobody interrupts any more. Idempotent."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.release()

    def _called(self) -> None:
        with self._guard:
            if self._link.connected:  # else nobody would release it
                self._asserted = True
                self._pin.set(True)
