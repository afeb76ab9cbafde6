"""A packed ring with a driver on one side and ``_fastring`` on the other, in a few pages of RAM. For its tests only."""

from collections.abc import Sequence

from acrn_dm._fastring import PackedRing
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from tests.ring.fastring_rig import RING, RingRig

AVAIL, USED, NEXT, WRITE, INDIRECT = 0x80, 0x8000, 1, 2, 4
ENABLE, DISABLE, DESC = 0, 1, 2
WRAP = 0x8000


class PackedRig(RingRig):
    """``driver`` writes what ``ring`` walks; ``slot`` reads a descriptor as the specification has it."""

    driver: PackedDriverRing
    ring: PackedRing

    def __init__(
        self,
        size: int = 8,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start: int = 0,
        ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
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

    def device_event(self) -> tuple[int, int]:
        """(off and wrap, flags) of the device's event suppression structure."""
        return self.driver.device_event()
