"""A packed shadow ring (``ring.shadow``): one with descriptors of its own, for those of the driver's ring do not stay.

A used descriptor is written over the next one in the ring, whichever chain that belongs to. So whoever passes a chain
on takes its descriptors along (``Ring.descriptors``).
"""

import mmap
from collections.abc import Iterable

import attrs

from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, RingLayout, align_up
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import PACKED_DESC, packed_layout
from acrn_dm.ring.shadow import ALIGNMENT


def packed_shadow_layout(at: int, size: int) -> RingLayout:
    """The three areas of a ring of *size* descriptors from offset *at* on, each with cache lines of its own."""
    return packed_layout(align_up(at, ALIGNMENT), size, ALIGNMENT)


@attrs.frozen
class _Mapped:
    """A mapping as memory of rings, its beginning at address 0."""

    memory: mmap.mmap

    def read(self, gpa: int, length: int) -> bytes:
        return self.memory[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        self.memory[gpa : gpa + len(data)] = data


class PackedShadowRing:
    """The driver's side of one ring in *memory*, empty at first. Not thread-safe."""

    def __init__(self, memory: mmap.mmap, layout: RingLayout) -> None:
        self._ring = PackedDriverRing(_Mapped(memory), layout)

    def add(self, chains: Iterable[tuple[int, bytes]]) -> None:
        """Make (head, descriptors) available; there is always room for what is in flight in a ring of the same size."""
        for head, raw in chains:
            self._ring.poke(_linked(raw), head)

    def used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of what came back since the last call."""
        return self._ring.used()


def _linked(raw: bytes) -> list[tuple[int, int, int, int]]:
    """(gpa, length, flags, id) of each, NEXT in all but the last: the driver may have changed it since it was read."""
    found = [
        (gpa, length, flags & (DESC_F_WRITE | DESC_F_INDIRECT) | DESC_F_NEXT, 0)
        for gpa, length, _, flags in PACKED_DESC.iter_unpack(raw)
    ]
    gpa, length, flags, _ = found[-1]
    return [*found[:-1], (gpa, length, flags & ~DESC_F_NEXT, 0)]
