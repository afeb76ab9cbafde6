"""Rings of our own between us and another device side: of split ones available and used ring, the descriptor table is
the driver's. Packed ones are whole (``ring.packed.shadow``).

Heads mean the same on both sides. Here interrupts and kicks are never suppressed: there are eventfds in between, whose
system calls also order the accesses (x86 keeps each kind in order). In C they are, by flags of split rings, while the
other side looks by itself.
"""

import mmap
from collections.abc import Iterable

from acrn_dm._fastring import PackedRing, SplitRing
from acrn_dm.ring.layout import U16, USED_ELEMENT, RingLayout, align_up, avail_bytes, used_bytes
from acrn_dm.ring.ring import Ring

ALIGNMENT = 64  # a cache line: the two sides write different ones


def shadow_layout(at: int, size: int) -> RingLayout:
    """The two rings of *size* entries one after the other from offset *at* on; there is no table."""
    avail = align_up(at, ALIGNMENT)
    return RingLayout(size=size, desc=0, avail=avail, used=align_up(avail + avail_bytes(size), ALIGNMENT))


def can_shadow(ring: Ring) -> bool:
    """Whether chains of *ring* are noted and entered in C: it is native, and nothing stands before it."""
    return isinstance(ring, (SplitRing, PackedRing))


class ShadowRing:
    """The driver's side of one ring in *memory*, empty at first. Not thread-safe."""

    def __init__(self, memory: mmap.mmap, layout: RingLayout) -> None:
        self._memory = memory
        self._layout = layout
        self._next_avail = 0
        self._last_used = 0
        memory[layout.avail : layout.avail + avail_bytes(layout.size)] = bytes(avail_bytes(layout.size))
        memory[layout.used : layout.used + used_bytes(layout.size)] = bytes(used_bytes(layout.size))

    def add(self, chains: Iterable[tuple[int, bytes]]) -> None:
        """Make chains available by their heads; there are never more than the ring has entries."""
        for head, _ in chains:
            U16.pack_into(self._memory, self._layout.avail_entry_at(self._next_avail), head)
            self._next_avail = (self._next_avail + 1) & 0xFFFF
        U16.pack_into(self._memory, self._layout.avail_idx_at, self._next_avail)

    def used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of what came back since the last call. Raises ValueError for more than there can be."""
        (index,) = U16.unpack_from(self._memory, self._layout.used_idx_at)
        count = (index - self._last_used) & 0xFFFF
        if count > self._layout.size:
            raise ValueError(f"its used index jumped by {count} in a ring of {self._layout.size}")
        elements = []
        for i in range(self._last_used, self._last_used + count):
            elements.append(USED_ELEMENT.unpack_from(self._memory, self._layout.used_element_at(i)))
        self._last_used = index
        return elements
