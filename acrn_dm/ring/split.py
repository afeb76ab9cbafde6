"""The split virtqueue of virtio 1.4 (2.7) as a ring format. Rules and driver side are imported for those who ask."""

from typing import TYPE_CHECKING

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring import layout as split_layout
from acrn_dm.ring.features import EVENT_IDX, IN_ORDER, INDIRECT_DESC
from acrn_dm.ring.layout import RingLayout, RingMemory, RingPart
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import NotesFormat, Ring, Tally, Tell

if TYPE_CHECKING:
    import mmap

    from acrn_dm.ring.driver import DriverRing
    from acrn_dm.ring.shadow import ShadowRing

MAX_INDEX = 0xFFFF  # 2.7: indices run on modulo 2^16


class SplitFormat:
    """``RingFormat`` of split rings."""

    start = RingPosition()
    shadows_descriptors = False
    sizes = "a power of two"

    def takes_size(self, size: int) -> bool:
        """A power of two up to 32768 (2.7)."""
        return split_layout.is_queue_size(size)

    def position_said(self, base: int) -> RingPosition:
        """The index of the next available entry."""
        if base > MAX_INDEX:
            raise ValueError(f"no split ring is at {base}")
        return RingPosition.from_base(base)

    def make_ring(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> SplitRing:
        """The device side. Raises GuestError for a bad size, alignment, address or position."""
        if position.base > MAX_INDEX:
            raise GuestError(f"position {position.base:#x} is none of a split ring")
        return SplitRing(
            memory,
            size=layout.size,
            desc=layout.desc,
            avail=layout.avail,
            used=layout.used,
            event_idx=bool(features & EVENT_IDX),
            indirect=bool(features & INDIRECT_DESC),
            next_avail=position.base,
        )

    def notes(self) -> NotesFormat:
        """As vhost-user lays them out."""
        from acrn_dm.ring.native.notes import split  # noqa: PLC0415

        return split

    def tally(self, features: int, memory: MemoryMap, layout: RingLayout, position: RingPosition) -> Tally:
        """By both indices."""
        from acrn_dm.ring.native.tally._tally import RingTally  # noqa: PLC0415

        event_idx = bool(features & EVENT_IDX)
        places = {"size": layout.size, "avail": layout.avail, "used": layout.used}
        return RingTally(memory, **places, event_idx=event_idx, position=position.base)

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
        from acrn_dm.ring.split_rules import SplitRules  # noqa: PLC0415

        return SplitRules(ring, memory, layout, features, begin=position.base, tell=tell, fresh=fresh)

    def lay_out(self, gpa: int, size: int, align: int) -> RingLayout:
        """One after the other, the used ring at a multiple of *align*."""
        return RingLayout.at(gpa, size, align)

    def make_driver_ring(self, features: int, memory: RingMemory, layout: RingLayout, start: int) -> "DriverRing":
        """The driver side; both indices begin at *start*, modulo 2^16."""
        from acrn_dm.ring.driver import DriverRing  # noqa: PLC0415

        return DriverRing(
            memory,
            layout,
            event_idx=bool(features & EVENT_IDX),
            in_order=bool(features & IN_ORDER),
            start=start & 0xFFFF,
        )

    def parts(self, layout: RingLayout) -> tuple[RingPart, ...]:
        """With both event indices: who is told of a ring may use them."""
        return layout.parts()

    def lay_out_shadow(self, at: int, size: int) -> RingLayout:
        """Two rings; the table is the driver's."""
        from acrn_dm.ring.shadow import shadow_layout  # noqa: PLC0415

        return shadow_layout(at, size)

    def make_shadow(self, memory: "mmap.mmap", layout: RingLayout) -> "ShadowRing":
        """The driver's side of it."""
        from acrn_dm.ring.shadow import ShadowRing  # noqa: PLC0415

        return ShadowRing(memory, layout)

    def used_position(self, memory: RingMemory, layout: RingLayout) -> RingPosition:
        """The used index."""
        return split_layout.used_position(memory, layout)

    def idle(self, memory: RingMemory, layout: RingLayout) -> bool:
        """Both indices are the same."""
        return split_layout.idle(memory, layout)


SPLIT = SplitFormat()
