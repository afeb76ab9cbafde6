"""The server of a queue that a plane in C serves: what is left to Python of it.

Kicks, chains and interrupts pass without the GIL. Python starts and stops the plane, looks by a timer where queues are
polled (``--virtio_poll``), interrupts where the call is no eventfd of ours, and tells the device of a queue that died.
"""

import logging

from acrn_dm.base.errors import AcrnDmError, GuestError
from acrn_dm.base.events.ioloop import Timer
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.optional import NativePlane
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000


class PlaneServer:
    """The server of one queue by *plane*, from ``start`` to ``detach`` (which control threads call)."""

    def __init__(
        self, device: VirtioDevice, queue: Queue, events: SessionQueue, poll_ns: int | None, plane: Plane
    ) -> None:
        self.queue = queue
        self._device = device
        self._events = events
        self._poll_s = None if poll_ns is None else poll_ns / NS_PER_S
        self._plane = plane
        self._timer: Timer | None = None

    def start(self) -> None:
        """Take kicks, and look at the ring once: drivers may fill it before DRIVER_OK and need not kick for that."""
        kick, call, loop = self._events.kick, self._events.call, self.queue.loop
        call_fd = -1
        if call.private:  # it may be written in C: what no hypervisor takes, the loop passes on
            call.forward(loop, self._failed)
            call_fd = call.fd
        loop.attend(kick.fd, self._asked)
        timed = self._poll_s is not None
        fds = {"kick_fd": kick.fd, "call_fd": call_fd}
        coalescer = self.queue.coalescer
        self._plane.start(self.queue.ring, loop.poll, self.queue.counters, timed=timed, coalescer=coalescer, **fds)
        kick.signal()
        if self._poll_s is not None:
            self._timer = loop.call_later(self._poll_s, self._on_timer)

    def stop(self) -> None:
        """When this returns no chain is taken any more; those that were may still be completed."""
        loop = self.queue.loop
        with loop.held():
            loop.remove(self._events.kick.fd)
            self._plane.stop()
        if self._timer is not None:
            self._timer.cancel()

    def detach(self) -> None:
        """When this returns the plane knows the ring no more, and the driver has been interrupted for all that it was
        shown: a plane that was stopped has nobody who hears that it asks for that.
        """
        with self.queue.loop.held():
            if self._plane.owes_call() and not self.queue.closed:
                self.queue.call()
            self._plane.detach()

    def _on_timer(self) -> None:
        if self._poll_s is not None:
            self._plane.look()
            self._timer = self.queue.loop.call_later(self._poll_s, self._on_timer)

    def _asked(self) -> None:
        call, error = self._plane.asked()
        if call:
            self.queue.call()
        if self.queue.coalescer.by_loop:
            self.queue.hold()
        if error is not None:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """On the loop's thread: the plane's failure, or an interrupt that can't be delivered."""
        end_queue(self._device, self.queue, error)
        self.stop()
        self.detach()


def plane_of(device: VirtioDevice, queue: Queue, session: Session) -> Plane | None:
    """The plane that serves *queue*, if *device* has one and nothing asks for the way through Python."""
    if not session.native or not isinstance(device, NativePlane) or not Plane.takes(queue.ring):
        return None
    return device.plane(session.features, queue)


def end_queue(device: VirtioDevice, queue: Queue, error: Exception) -> None:
    """*queue* is dead because of *error* until the driver resets; the others go on."""
    queue.counters.failed(isinstance(error, GuestError))
    queue.close()
    if not isinstance(error, AcrnDmError):  # those say enough; the transport logs what they say
        log.error("%s: queue %d failed", device.name, queue.index, exc_info=error)
    # Without the traceback, whose frames refer to chains: who keeps the error must not keep guest memory.
    device.fail(error.with_traceback(None))
