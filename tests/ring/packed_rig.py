"""A packed ring with a driver on one side and ``_fastring`` on the other, in a few pages of RAM. For its tests only."""

import mmap
from collections.abc import Callable, Sequence

import pytest

from acrn_dm._fastring import Chain, MemoryMap, PackedRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from tests.ring.fastring_rig import HIGH, LOW, REGION_BYTES, RING, TOUCHING

AVAIL, USED, NEXT, WRITE, INDIRECT = 0x80, 0x8000, 1, 2, 4
ENABLE, DISABLE, DESC = 0, 1, 2
WRAP = 0x8000


class PackedRig:
    """``driver`` writes what ``ring`` walks; ``slot`` reads a descriptor as the specification has it."""

    def __init__(
        self,
        size: int = 8,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start: int = 0,
        ids: Sequence[int] | None = None,
    ) -> None:
        self.mappings = [mmap.mmap(-1, REGION_BYTES) for _ in range(3)]
        self.memory = MemoryMap(list(zip((LOW, TOUCHING, HIGH), self.mappings, strict=True)))
        self.layout = packed_layout(RING, size)
        self.driver = PackedDriverRing(self.memory, self.layout, event_idx=event_idx, start=start, ids=ids)
        at = self.driver.position.base
        self.ring = PackedRing(
            self.memory,
            size=size,
            desc=self.layout.desc,
            driver=self.layout.avail,
            device=self.layout.used,
            event_idx=event_idx,
            indirect=indirect,
            next_avail=at & 0xFFFF,
            next_used=at >> 16,
        )

    def slot(self, n: int) -> tuple[int, int, int, int]:
        """(addr, len, id, flags) of the descriptor in slot *n*."""
        return self.driver.desc(n)

    def offer(self, out: list[tuple[int, int]], in_: list[tuple[int, int]], table: int | None = None) -> int:
        """Make one chain available; returns its buffer id."""
        head = self.driver.add_chain(out, in_, table)
        self.driver.publish()
        return head

    def pop(self) -> Chain:
        """The one chain that is there."""
        (chain,) = self.ring.pop_batch()
        return chain

    def complete(self, *chains: Chain, written: int | None = None) -> bool:
        """Push and publish; whether the driver wants an interrupt."""
        for chain in chains:
            self.ring.push(chain, written)
        return self.ring.publish()

    def device_event(self) -> tuple[int, int]:
        """(off and wrap, flags) of the device's event suppression structure."""
        return self.driver.device_event()


def expect_broken(rig: PackedRig, message: str) -> None:
    """The next pop blames the guest, and from then on every call does."""
    ring = rig.ring
    calls: tuple[Callable[[], object], ...] = (
        ring.pop_batch,
        ring.publish,
        ring.waiting,
        ring.enable_kicks,
        ring.disable_kicks,
        lambda: ring.unpop([]),
    )
    for call in calls:
        with pytest.raises(GuestError, match=message):
            call()
    assert ring.broken is True
