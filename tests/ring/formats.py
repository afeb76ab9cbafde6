"""The ring formats, for tests that are about each: driver, native ring and model, from one description."""

from typing import Any

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.factory import make_driver_ring, make_ring, ring_format
from acrn_dm.ring.features import EVENT_IDX, INDIRECT_DESC, PACKED
from acrn_dm.ring.layout import RingLayout, RingMemory
from acrn_dm.ring.model import ModelMemory, ModelSplitRing
from acrn_dm.ring.packed.layout import off_wrap
from acrn_dm.ring.packed.model import ModelPackedRing
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import DriverSide, Ring


@attrs.frozen
class Placed:
    """A queue as its driver has placed it."""

    layout: RingLayout
    position: RingPosition


@attrs.frozen
class Format:
    """One ring format. *start* is how many chains, or descriptors, have gone by before."""

    name: str
    feature: int
    sizes: tuple[int, ...]  # some that a queue can have
    starts: tuple[int, ...]  # some at which wraps are near

    def __str__(self) -> str:
        return self.name

    def features(self, *, event_idx: bool = False, indirect: bool = False) -> int:
        """What is negotiated for such rings."""
        return self.feature | EVENT_IDX * event_idx | INDIRECT_DESC * indirect

    def lay_out(self, gpa: int, size: int, align: int = 4) -> RingLayout:
        return ring_format(self.feature).lay_out(gpa, size, align)

    def driver(self, memory: RingMemory, layout: RingLayout, *, event_idx: bool = False, start: int = 0) -> DriverSide:
        return make_driver_ring(self.features(event_idx=event_idx), layout, memory, start=start)

    def position(self, layout: RingLayout, start: int) -> RingPosition:
        """Where a ring goes on behind *start*, with nothing in flight."""
        if not self.feature:
            return RingPosition(start & 0xFFFF)
        at = off_wrap(start, layout.size)
        return RingPosition(at | at << 16)

    def ring(
        self,
        memory: MemoryMap,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start: int = 0,
    ) -> Ring:
        """The native device side."""
        features = self.features(event_idx=event_idx, indirect=indirect)
        return make_ring(features, Placed(layout, self.position(layout, start)), memory)

    def model(
        self,
        memory: ModelMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start: int = 0,
    ) -> Any:
        """The oracle."""
        if self.feature:
            return ModelPackedRing(memory, layout, event_idx=event_idx, indirect=indirect, start=start)
        return ModelSplitRing(memory, layout, event_idx=event_idx, indirect=indirect, next_avail=start & 0xFFFF)


SPLIT = Format("split", 0, (1, 2, 4, 8, 16), (0, *range(65530, 65536)))
PACKED_RINGS = Format("packed", PACKED, (1, 2, 3, 5, 7, 8, 12, 16), (0, 1, 2, 5, 15, 16, 17, 40))
FORMATS = (SPLIT, PACKED_RINGS)
