"""A ring with a driver on one side and ``_fastring`` on the other, in a few pages of RAM. For the ring's tests only."""

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm._fastring import Chain, MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import DESC, RingLayout

LOW = 0  # 64 KiB: the rings at RING, then free
TOUCHING = 0x1_0000  # 64 KiB, another host mapping that goes on where LOW ends
HIGH = 0x1_0000_0000  # 64 KiB behind a hole
REGION_BYTES = 0x1_0000
TOUCHING_END = TOUCHING + REGION_BYTES
RING = 0x1000
DATA = 0x8000  # free for buffers, up to TOUCHING
TABLE = 0x7000  # free for an indirect table
OUTSIDE = 0x5000_0000  # in the hole


class RingRig:
    """What rigs of both formats have: memory, and what is done with ``driver`` and ``ring`` in any."""

    driver: Any
    ring: Any

    def __init__(self) -> None:
        self.mappings = [mmap.mmap(-1, REGION_BYTES) for _ in range(3)]
        self.memory = MemoryMap(list(zip((LOW, TOUCHING, HIGH), self.mappings, strict=True)))

    def offer(self, out: list[tuple[int, int]], in_: list[tuple[int, int]], table: int | None = None) -> int:
        """Make one chain available; returns its head, or buffer id."""
        head: int = self.driver.add_chain(out, in_, table)
        self.driver.publish()
        return head

    def pop(self) -> Chain:
        """The one chain that is there."""
        (chain,) = self.ring.pop_batch()
        return chain  # type: ignore[no-any-return]

    def complete(self, *chains: Chain, written: int | None = None) -> bool:
        """Push and publish; whether the driver wants an interrupt."""
        for chain in chains:
            self.ring.push(chain, written)
        return bool(self.ring.publish())


class Rig(RingRig):
    """``driver`` writes what ``ring`` walks."""

    driver: DriverRing
    ring: SplitRing

    def __init__(
        self, *, size: int = 8, event_idx: bool = False, indirect: bool = False, start: int = 0, align: int = 4
    ) -> None:
        super().__init__()
        self.layout = RingLayout.at(RING, size, align)
        self.driver = DriverRing(self.memory, self.layout, event_idx=event_idx, start=start)
        self.ring = SplitRing(
            self.memory,
            size=size,
            desc=self.layout.desc,
            avail=self.layout.avail,
            used=self.layout.used,
            event_idx=event_idx,
            indirect=indirect,
            next_avail=start,
        )

    def offer_raw(self, *descriptors: tuple[int, int, int, int], head: int = 0) -> None:
        """Write (gpa, length, flags, next) from descriptor 0 on and make *head* available."""
        self.driver.poke(descriptors, head)


def expect_broken(rig: RingRig, message: str) -> None:
    """The next pop blames the guest, and from then on every call does."""
    ring = rig.ring
    calls: tuple[Callable[[], object], ...] = (
        ring.pop_batch,
        ring.publish,
        ring.waiting,
        *([ring.avail_idx] if isinstance(ring, SplitRing) else []),
        ring.enable_kicks,
        ring.disable_kicks,
        lambda: ring.unpop([]),
    )
    for call in calls:
        with pytest.raises(GuestError, match=message):
            call()
    assert ring.broken is True


def table_of(*descriptors: tuple[int, int, int, int]) -> bytes:
    """Bytes of an indirect table."""
    return b"".join(DESC.pack(*d) for d in descriptors)


def drain(ring: SplitRing, batch: int = 64) -> None:
    """Complete everything that is there, unread."""
    while chains := ring.pop_batch(batch):
        for chain in chains:
            ring.push(chain, 0)
        ring.publish()
