"""The queues of a disk that are served without Python: made, told of changes, drained and given up together.

What a plane can't do comes back to Python, on the queue's loop: as a request to execute, or as one that the host has
failed.
"""

import time
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage
from acrn_dm.devices.virtio_blk.native._plane import BlkPlane
from acrn_dm.devices.virtio_blk.native._service import BlkService
from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.native.throttle._throttle import BlkThrottle
from acrn_dm.devices.virtio_blk.request import Limits, Request
from acrn_dm.virtio.queue import Queue

HELD_S = 0.005  # a drain keeps the other devices of a loop waiting this long at a time

Handed = Callable[[Queue, Chain, Request, int], None]  # the last is the host's errno, 0: not tried yet


@define(eq=False)
class Served:
    """One queue with its plane."""

    queue: Queue
    plane: BlkPlane
    watched: int = -1  # the engine's eventfd


def can_serve(image: object) -> bool:
    """Whether planes know *image*: one that a test has put in its place they would pass by."""
    return image is None or type(image) in (Image, DirectImage) or getattr(image, "has_engines", False) is True


@define(eq=False)
class BlkPlanes:
    """Those of device *name*, with the engine that *aio* says. *handed* gets what is for Python."""

    name: str
    handed: Handed
    _served: list[Served] = attrs.field(factory=list, init=False)
    _left: list[BlkService] = attrs.field(factory=list, init=False)  # given up, and not back from the host
    _ending: dict[int, BlkService] = attrs.field(factory=dict, init=False)  # of queues that were dropped

    def add(self, queue: Queue, serial: bytes, *, legacy: bool) -> BlkPlane:
        """A plane for *queue*, without a medium."""
        service = BlkService(queue.ring, serial, legacy=legacy)  # type: ignore[arg-type]
        served = Served(queue, BlkPlane(service, queue.loop.poll))
        self._served.append(served)
        return served.plane

    def adopt(self, image: Image, make: Callable[[int], BlkEngine]) -> None:
        """*image* is the medium of all that have none; *make* makes an engine for so many requests. Raises OSError."""
        alignment = image.alignment if isinstance(image, DirectImage) else 0
        for served in self._served:
            service = served.plane.service
            if service.engine is not None:
                continue
            engine = make(served.queue.size)
            in_memory = alignment == 0 and image.trust.standing.in_memory
            with served.queue.loop.held():
                service.adopt(engine, image, alignment=alignment, in_memory=in_memory)
                served.watched = engine.event_fd
                served.queue.loop.attend(engine.event_fd, lambda s=served: self._take(s))  # type: ignore[misc]
                served.plane.watch()

    def restrain(self, throttle: BlkThrottle) -> None:
        """Requests wait for the limits of *throttle* from now on, if there are any. Raises OSError."""
        for served in self._served:
            if throttle.active or served.plane.service.gate is not None:
                with served.queue.loop.held():
                    served.plane.restrain(throttle)

    def limit(self, limits: Limits, *, durable: bool) -> None:
        """What requests are held to from now on."""
        for served in self._served:
            with served.queue.loop.held():
                served.plane.service.limit(limits, durable=durable)

    def promise(self, durable: bool) -> None:
        """Whether a write that completes is on the medium, from now on."""
        for served in self._served:
            served.plane.service.promise(durable)

    def drain(self, seconds: float) -> bool:
        """Wait until everything is answered or handed on; false if that takes longer. Kicks have ended."""
        deadline = time.monotonic() + seconds
        for served in self._served:
            while not self._drained(served):
                if time.monotonic() > deadline:
                    return False
        return True

    def _drained(self, served: Served) -> bool:
        if served.plane.service.cancelled:
            return True
        with served.queue.loop.held():
            idle = served.plane.drain(HELD_S)
            self._take(served)
        return idle

    def cancel(self) -> None:
        """Nobody wants the answers any more. Does not wait for the host."""
        for served in self._served:
            self._give_up(served)

    def drop(self, queue: Queue) -> None:
        """As ``cancel`` and ``close``, for one queue."""
        for served in [s for s in self._served if s.queue is queue]:
            self._give_up(served)
            self._served.remove(served)
            self._left.append(served.plane.service)
            self._ending[queue.index] = served.plane.service
        self._sweep()

    def queue_busy(self, index: int) -> bool:
        """Whether the host still has requests of a queue that was dropped."""
        return index in self._ending and self._ending[index].busy

    def _give_up(self, served: Served) -> None:
        with served.queue.loop.held():
            self._unwatch(served)
            served.plane.service.cancel()

    @property
    def busy(self) -> bool:
        """Whether the host still has requests that were given up."""
        return any(service.busy for service in (*self._left, *(s.plane.service for s in self._served)))

    def close(self) -> None:
        """End them; what the host has not given back is left until it does."""
        for served in self._served:
            with served.queue.loop.held():
                self._unwatch(served)
            self._left.append(served.plane.service)
        self._served.clear()
        self._ending.clear()
        self._sweep()

    def _sweep(self) -> None:
        """Close what the host has given back."""
        busy = [service for service in self._left if service.busy]
        for service in self._left:
            if service not in busy:
                service.close()
        self._left = busy

    def abandon(self) -> None:
        """The process or the device ends: what is left stays as it is for good."""
        for service in self._left:
            service.close()

    def _unwatch(self, served: Served) -> None:
        served.plane.unwatch()
        if served.watched >= 0:
            served.queue.loop.remove(served.watched)
            served.watched = -1

    def _take(self, served: Served) -> None:
        """On the loop's thread, or with the loop held."""
        if served.queue.closed or served.plane.service.cancelled:
            return
        for chain, request, err in served.plane.service.take_handed(served.queue.ring):  # type: ignore[arg-type]
            self.handed(served.queue, chain, request, err)
