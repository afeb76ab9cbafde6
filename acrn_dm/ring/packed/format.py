"""The packed virtqueue of virtio 1.4 (2.8) as a ring format.

Its position has four parts: which descriptor either side comes to next, and both wrap counters. As vhost and
vhost-user say it (SET_VRING_BASE), bits 0 to 14 are the next available descriptor and bit 15 its wrap counter; the
upper half says the same of the next used one. Neither stands in the ring: of a list only one descriptor is ever written
as used (2.8.6), so who finds a ring in memory can't tell what of it was returned.

Rules and driver side are imported for who asks for them.
"""

from typing import TYPE_CHECKING

from acrn_dm._fastring import MemoryMap, PackedRing
from acrn_dm.ring.features import EVENT_IDX, IN_ORDER, INDIRECT_DESC
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, RingLayout, RingMemory, RingPart
from acrn_dm.ring.packed.layout import WRAP, packed_layout, packed_parts
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import NotesFormat, Ring, Tell

if TYPE_CHECKING:
    import mmap

    from acrn_dm.ring.packed.driver import PackedDriverRing
    from acrn_dm.ring.packed.shadow import PackedShadowRing

HALF = 16  # bits of one side's part of a position


class PackedFormat:
    """``RingFormat`` of packed rings."""

    start = RingPosition(WRAP << HALF | WRAP)
    shadows_descriptors = True
    sizes = "any number"

    def takes_size(self, size: int) -> bool:
        """Any number up to 32768 (2.8.10.1)."""
        return 0 < size <= MAX_QUEUE_SIZE

    def position_said(self, base: int) -> RingPosition:
        """Both parts. Some peers say the lower one alone (DPDK): where nothing is in flight both are the same."""
        position = RingPosition.from_base(base)
        return position if base >> HALF else RingPosition(base | base << HALF)

    def make_ring(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> PackedRing:
        """The device side. Raises GuestError for a bad size, alignment, address or position."""
        return PackedRing(
            memory,
            size=layout.size,
            desc=layout.desc,
            driver=layout.avail,
            device=layout.used,
            event_idx=bool(features & EVENT_IDX),
            indirect=bool(features & INDIRECT_DESC),
            next_avail=position.base & 0xFFFF,
            next_used=position.base >> HALF,
        )

    def notes(self) -> NotesFormat:
        """As vhost-user lays them out."""
        from acrn_dm.ring.native.notes import packed  # noqa: PLC0415

        return packed

    def tally(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> None:
        """Nobody: what is used is written over what was available."""

    def watch(
        self,
        ring: Ring,
        features: int,
        memory: MemoryMap,
        *,
        layout: RingLayout,
        position: RingPosition,
        tell: Tell,
        fresh: bool,
    ) -> Ring:
        """Rules before the ring."""
        from acrn_dm.ring.packed.rules import PackedRules  # noqa: PLC0415

        return PackedRules(ring, memory, layout, features, begin=position, tell=tell, fresh=fresh)

    def lay_out(self, gpa: int, size: int, align: int) -> RingLayout:
        """One area after the other, the event suppression structures at multiples of *align*."""
        return packed_layout(gpa, size, align)

    def make_driver_ring(self, features: int, memory: RingMemory, layout: RingLayout, start: int) -> "PackedDriverRing":
        """The driver side, by which *start* descriptors have gone before."""
        from acrn_dm.ring.packed.driver import PackedDriverRing  # noqa: PLC0415

        return PackedDriverRing(
            memory, layout, event_idx=bool(features & EVENT_IDX), in_order=bool(features & IN_ORDER), start=start
        )

    def parts(self, layout: RingLayout) -> tuple[RingPart, ...]:
        """The descriptor ring and both event suppression structures."""
        return packed_parts(layout)

    def lay_out_shadow(self, at: int, size: int) -> RingLayout:
        """A whole ring."""
        from acrn_dm.ring.packed.shadow import packed_shadow_layout  # noqa: PLC0415

        return packed_shadow_layout(at, size)

    def make_shadow(self, memory: "mmap.mmap", layout: RingLayout) -> "PackedShadowRing":
        """The driver's side of it."""
        from acrn_dm.ring.packed.shadow import PackedShadowRing  # noqa: PLC0415

        return PackedShadowRing(memory, layout)

    def used_position(self, memory: RingMemory, layout: RingLayout) -> None:
        """Nobody can know."""

    def idle(self, memory: RingMemory, layout: RingLayout) -> bool:
        """Nobody can know, so it may not be."""
        return False


PACKED_RINGS = PackedFormat()
