"""The limits of one disk, and its requests that wait for them where Python executes them."""

import contextlib
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.engine.parking import Parking
from acrn_dm.devices.virtio_blk.native.throttle._throttle import BlkThrottle
from acrn_dm.devices.virtio_blk.rates import RateOptions
from acrn_dm.devices.virtio_blk.request import Request
from acrn_dm.virtio.queue import Queue

Begin = Callable[[Queue, Chain, Request], None]
Parked = tuple[Queue, Chain, Request]


@define(eq=False)
class Restraint:
    """Those of one device, whose requests go on with *begin* when they may."""

    begin: Begin
    throttle: BlkThrottle = attrs.field(factory=BlkThrottle, init=False)  # which planes use, too
    _queues: list[tuple[Queue, Parking[Parked]]] = attrs.field(factory=list, init=False)

    def set(self, options: RateOptions) -> None:
        """The limits from now on, also for what waits."""
        self.throttle.set(options.rates, options.iops_size)
        for queue, parking in self._queues:
            with queue.loop.held():
                parking.look()

    def add(self, queue: Queue) -> None:
        """*queue* is served from now on."""
        self._queues.append((queue, Parking(self.throttle, queue.loop, lambda it: self.begin(*it), queue.flush)))

    def parks(self, queue: Queue, chain: Chain, request: Request) -> bool:
        """Keep a request that has to wait; False: it may begin now. On the queue's loop."""
        for other, parking in self._queues:
            if other is queue and parking.parks((queue, chain, request), request):
                queue.counters.throttled()
                return True
        return False

    def drop(self, queue: Queue | None = None) -> None:
        """Nobody wants what waits any more, of *queue* or of all."""
        for entry in tuple(self._queues):
            if queue is None or entry[0] is queue:
                with entry[0].loop.held():
                    entry[1].drop()
                self._queues.remove(entry)

    def release(self) -> None:
        """Begin everything that waits: kicks have ended. The driver of a broken ring waits for nothing."""
        for queue, parking in self._queues:
            with queue.loop.held(), contextlib.suppress(GuestError):
                parking.release()
        self._queues.clear()
