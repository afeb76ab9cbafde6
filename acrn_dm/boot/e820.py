"""The guest's memory map as its boot protocols report it.

Source: Linux Documentation/arch/x86/zero-page.rst; the 20-byte entry is the BIOS call's.
"""

import struct
from collections.abc import Iterable, Sequence

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.records import frozen
from acrn_dm.memory.guest_memory import MemoryRange

RAM = 1
RESERVED = 2


@frozen(kw_only=True)
class E820Entry:
    """*size* bytes from *base* on are of *type* (1 RAM, 2 reserved)."""

    base: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    type: int


def memory_map(ranges: Sequence[MemoryRange]) -> tuple[E820Entry, ...]:
    """Return the map of a guest with *ranges* of RAM, by address.

    The legacy hole (0xA0000-0x100000) is RAM, but unreported: the firmware tables lie there.
    """
    entries = [E820Entry(base=base, size=end - base, type=RAM) for r in ranges for base, end in _reported(r)]
    platform = layout.PLATFORM_END - layout.PLATFORM_BASE
    entries.append(E820Entry(base=layout.PLATFORM_BASE, size=platform, type=RESERVED))
    return tuple(sorted(entries, key=lambda entry: entry.base))


def _reported(r: MemoryRange) -> list[tuple[int, int]]:
    end = r.gpa + r.size
    parts = [(r.gpa, min(end, layout.LEGACY_HOLE_BASE)), (max(r.gpa, layout.LEGACY_HOLE_END), end)]
    return [(first, last) for first, last in parts if first < last]


def pack(entries: Iterable[E820Entry]) -> bytes:
    """Encode *entries*: u64 base, u64 size, u32 type each."""
    return b"".join(struct.pack("<QQI", e.base, e.size, e.type) for e in entries)
