"""Requests that wait for a limit where Python executes them: as ``native/throttle/_gate``, by the loop's own clock."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.native.throttle._throttle import BlkThrottle
from acrn_dm.devices.virtio_blk.request import Op, Request

R = TypeVar("R")

NS = 1_000_000_000


READS, WRITES, OTHERS = range(3)  # what waits in order; others count as writes of no bytes
WAYS = {Op.READ: READS, Op.WRITE: WRITES, Op.WRITE_ZEROES: WRITES}


def cost(request: Request) -> tuple[int, int]:
    """(what *request* waits with, bytes that it counts as): discards move none, zeroes may have to be written out."""
    way = WAYS.get(request.op, OTHERS)
    return way, 0 if way == OTHERS else sum(extent.length for extent in request.extents)


@define(eq=False)
class Way(Generic[R]):
    """Those that wait for one another, each with what it costs; the first is counted, for *due*, when it may begin."""

    waiting: deque[tuple[R, int]] = attrs.field(factory=deque)
    due: int = 0


@define(eq=False)
class Parking(Generic[R]):
    """The requests of one queue, which *loop* serves, that wait for *throttle*; *begin* is called with each when it may
    begin, and *settled* after some of these calls.
    """

    throttle: BlkThrottle
    loop: IoLoop
    begin: Callable[[R], None]
    settled: Callable[[], None]
    _ways: tuple[Way[R], ...] = attrs.field(factory=lambda: (Way(), Way(), Way()), init=False)
    _generation: int = attrs.field(init=False)
    _timer: Timer | None = attrs.field(default=None, init=False)
    _alarm: int = attrs.field(default=0, init=False)  # when it rings; 0: not set

    @_generation.default
    def _at_first(self) -> int:
        return self.throttle.generation

    def parks(self, what: R, request: Request) -> bool:
        """Keep *what* if its *request* has to wait; False: it may begin now. On the loop's thread."""
        index, n_bytes = cost(request)
        way = self._ways[index]
        if not way.waiting:
            if not self.throttle.active:
                return False
            now = self._now()
            self._follow(now)
            way.due = self.throttle.reserve(index != READS, n_bytes, now)
            if way.due <= now:
                return False
        way.waiting.append((what, n_bytes))
        self._set_timer()
        return True

    def look(self) -> None:
        """Begin what has waited long enough, by the limits that hold now. On the loop's thread, or with it held."""
        now = self._now()
        self._follow(now)
        self._alarm = 0
        some = False
        for index, way in enumerate(self._ways):
            while way.waiting and way.due <= now:
                what, _ = way.waiting.popleft()
                self._reserve(index, now)
                self.begin(what)
                some = True
        self._set_timer()
        if some:
            self.settled()

    def release(self) -> None:
        """Begin everything, whatever the limits are. With the loop held."""
        for way in self._ways:
            while way.waiting:
                self.begin(way.waiting.popleft()[0])
        self._set_timer()
        self.settled()

    def drop(self) -> None:
        """Nobody wants what waits here any more, and what was counted of it is not. With the loop held."""
        for index, way in enumerate(self._ways):
            if way.waiting and self._generation == self.throttle.generation:
                self.throttle.give_back(index != READS, way.waiting[0][1])
            way.waiting.clear()
        self._set_timer()

    def _now(self) -> int:
        return self.loop.clock.monotonic_ns()

    def _reserve(self, index: int, now: int) -> None:
        """Count the first one that is left."""
        way = self._ways[index]
        if way.waiting:
            way.due = self.throttle.reserve(index != READS, way.waiting[0][1], now)

    def _follow(self, now: int) -> None:
        """Count the first ones anew where the limits have changed."""
        if self._generation != self.throttle.generation:
            self._generation = self.throttle.generation
            for index in (READS, WRITES, OTHERS):
                self._reserve(index, now)

    def _set_timer(self) -> None:
        """For the first one that is due."""
        due = min((way.due for way in self._ways if way.waiting), default=0)
        if due == self._alarm:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._alarm = due
        self._timer = self.loop.call_later(max(0, due - self._now()) / NS, self.look) if due else None
