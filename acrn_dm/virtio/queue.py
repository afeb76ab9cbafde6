"""A virtqueue in use: the ring, the loop that serves it, and the way to interrupt the driver.

A ``Queue`` exists from DRIVER_OK to reset. After ``close`` everything a late completion calls does nothing: its chain
belongs to a driver that is gone.
"""

import contextlib
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.clock import REAL
from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.base.records import define
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio.native._coalescer import Coalescer
from acrn_dm.virtio.native._counters import QueueCounters


@define(eq=False)
class Queue:
    """One enabled virtqueue. Used on its loop's thread only."""

    index: int
    ring: Ring = attrs.field(repr=False)
    loop: IoLoop = attrs.field(repr=False)
    call: Callable[[], None] = attrs.field(repr=False)  # interrupt the driver
    closed: bool = attrs.field(default=False, init=False)
    counters: QueueCounters = attrs.field(repr=False)
    coalescer: Coalescer = attrs.field(init=False, repr=False)
    _timer: Timer | None = attrs.field(default=None, init=False, repr=False)  # ends the wait of an interrupt
    _since: float = attrs.field(default=0.0, init=False, repr=False)  # when it began, on the loop's clock

    @counters.default
    def _its_own(self) -> QueueCounters:
        return QueueCounters(self.ring.size)

    @coalescer.default
    def _off(self) -> Coalescer:
        return Coalescer(by_loop=self.loop.clock is not REAL)

    @property
    def size(self) -> int:
        """Entries of the ring."""
        return self.ring.size

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        """Take up to *limit* available chains. Raises GuestError for a malformed ring."""
        if self.closed:
            return []
        chains = self.ring.pop_batch(limit)
        self.counters.popped(chains)
        return chains

    def unpop(self, chains: list[Chain]) -> None:
        """Give back the chains popped last, unprocessed."""
        if not self.closed:
            self.ring.unpop(chains)
            self.counters.unpopped(len(chains))

    def push(self, chain: Chain, written: int | None = None) -> None:
        """Return *chain* to the driver with *written* bytes placed in it (default: what its methods wrote)."""
        if not self.closed:
            count = chain.written if written is None else written
            self.ring.push(chain, count)
            self.counters.pushed(chain, count)

    def flush(self) -> None:
        """Publish what was pushed and interrupt the driver if it wants that; later where ``coalesce`` says so."""
        if self.closed:
            return
        if self.coalescer.active:
            self._flush_held()
            return
        wanted = self.ring.publish()
        self.counters.published(wanted)
        if wanted:
            self.call()

    def coalesce(self, max_packets: int, max_usecs: int) -> None:
        """From now on let an interrupt wait for *max_packets* chains, *max_usecs* microseconds at most; with a 0 none
        waits. One that waits already is held to the new numbers (virtio 5.1.6.5.10). Any thread.
        """
        with self.loop.held():
            self.coalescer.set(max_packets, max_usecs, self.counters)
            if not self.coalescer.holding:
                return
            if self.coalescer.full(self.counters):
                self.settle()
            elif self._timer is not None:
                self._timer.cancel()
                left = self._since + max_usecs * 1e-6 - self.loop.clock.monotonic()
                self._timer = self.loop.call_later(max(0.0, left), self._on_timer)
            elif not self.coalescer.rearm():
                self.hold()

    def hold(self) -> None:
        """See that an interrupt that waits is sent when its time is up, where no plane does."""
        if self.coalescer.holding and self._timer is None:
            self._since = self.loop.clock.monotonic()
            self._timer = self.loop.call_later(self.coalescer.max_usecs * 1e-6, self._on_timer)

    def settle(self) -> None:
        """Let no interrupt wait any more: send it if the driver still wants it. On the loop's thread, or with the loop
        held. Raises GuestError where the ring is broken.
        """
        self._forget_timer()
        if self.coalescer.holding and not self.closed:
            wanted = self.ring.release()
            self.coalescer.settled(self.counters, wanted)
            if wanted:
                self.call()

    def settle_last(self) -> None:
        """``settle`` before the queue is given up for a while. Any thread; a broken ring has nothing to tell."""
        with self.loop.held(), contextlib.suppress(GuestError):
            self.settle()

    def _flush_held(self) -> None:
        if self.coalescer.shown(self.counters, self.ring.hold()):
            self.settle()
        else:
            self.hold()

    def _on_timer(self) -> None:
        with contextlib.suppress(GuestError):  # whoever serves the ring meets it, too
            self.settle()

    def _forget_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """The driver's reset: forget the ring; outstanding chains are dead."""
        if not self.closed:
            self.closed = True
            self._forget_timer()
            self.ring.close()
