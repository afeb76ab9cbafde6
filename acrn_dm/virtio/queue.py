"""A virtqueue in use: the ring, the loop that serves it, and the way to interrupt the driver.

A ``Queue`` exists from DRIVER_OK to reset. After ``close`` everything a late completion calls does nothing: its chain
belongs to a driver that is gone.
"""

from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio.native._counters import QueueCounters


@attrs.define(eq=False)
class Queue:
    """One enabled virtqueue. Used on its loop's thread only."""

    index: int
    ring: Ring = attrs.field(repr=False)
    loop: IoLoop = attrs.field(repr=False)
    call: Callable[[], None] = attrs.field(repr=False)  # interrupt the driver
    closed: bool = attrs.field(default=False, init=False)
    counters: QueueCounters = attrs.field(repr=False)

    @counters.default
    def _its_own(self) -> QueueCounters:
        return QueueCounters(self.ring.size)

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
        """Publish what was pushed and interrupt the driver if it wants that."""
        if self.closed:
            return
        wanted = self.ring.publish()
        self.counters.published(wanted)
        if wanted:
            self.call()

    def close(self) -> None:
        """The driver's reset: forget the ring; outstanding chains are dead."""
        if not self.closed:
            self.closed = True
            self.ring.close()
