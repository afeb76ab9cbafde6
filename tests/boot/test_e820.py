"""The guest's memory map."""

import struct

from acrn_dm.boot import e820
from acrn_dm.memory.guest_memory import guest_ranges

MIB, GIB = 1 << 20, 1 << 30


def triples(size: int) -> list[tuple[int, int, int]]:
    return [(e.base, e.base + e.size, e.type) for e in e820.memory_map(guest_ranges(size))]


def test_small_guest_has_low_ram_and_the_platform() -> None:
    assert triples(256 * MIB) == [
        (0, 0xA0000, 1),
        (0x10_0000, 256 * MIB, 1),
        (0xE000_0000, 0x1_0000_0000, 2),
    ]


def test_large_guest_continues_at_4_gib() -> None:
    assert triples(5 * GIB) == [
        (0, 0xA0000, 1),
        (0x10_0000, 2 * GIB, 1),
        (0xE000_0000, 0x1_0000_0000, 2),
        (4 * GIB, 7 * GIB, 1),
    ]


def test_packed_entry_is_20_bytes() -> None:
    entries = e820.memory_map(guest_ranges(256 * MIB))
    data = e820.pack(entries)
    assert len(data) == 20 * len(entries)
    assert struct.unpack_from("<QQI", data, 20) == (0x10_0000, 255 * MIB, 1)
