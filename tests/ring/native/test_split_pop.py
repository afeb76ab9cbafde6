"""Where the quick walk of a split ring hands over to that of any chain: at each descriptor, for each reason, and with
usual chains before and behind it in the batch. What comes out is what the model finds.
"""

import struct
from itertools import pairwise

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.model import ModelMemory, ModelSplitRing
from tests.ring.fastring_rig import DATA, HIGH, OUTSIDE, TABLE, TOUCHING, Rig

LONG = 12  # descriptors: more than the quick walk takes
ODD = {  # (gpa, length, flags) in the place of one descriptor
    "usual": (HIGH + 64, 4, WRITE),
    "across regions": (TOUCHING - 2, 4, WRITE),
    "in the third region": (TOUCHING, 4, WRITE),
    "empty": (OUTSIDE, 0, 0),
    "outside": (OUTSIDE, 1, WRITE),
    "out of order": (DATA, 1, 0),
    "nested": (TABLE, 16, INDIRECT),
    "too much": (HIGH, 0xFFFFFFFF, WRITE),
}


Seen = list[tuple[int, int, int, bytes, int]]


def described(device: SplitRing | ModelSplitRing) -> tuple[Seen, str]:
    """What is found: framing, order and bytes of each chain, then the error that follows, if any."""
    found: Seen = []
    try:
        while chains := device.pop_batch():
            found += [(c.head, c.readable_bytes, c.writable_bytes, c.read(), c.write(b"x" * 99)) for c in chains]
    except GuestError as e:
        return found, str(e)
    return found, ""


def model(rig: Rig) -> ModelSplitRing:
    memory = ModelMemory(list(zip((0, TOUCHING, HIGH), rig.mappings, strict=True)))
    return ModelSplitRing(memory, rig.layout, indirect=True)


@pytest.mark.parametrize("table", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("at", [1, 2, 7, 8, 9, LONG - 1])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_descriptor_anywhere_is_what_it_is_in_the_model(odd: str, at: int, table: bool) -> None:
    rig = Rig(size=32, indirect=True)
    rig.memory.write(DATA, b"abcdefgh")
    rig.offer([(DATA, 3)], [(HIGH, 1)])
    chain = [(DATA + i, 1, 0) for i in range(2)] + [(HIGH + i, 1, WRITE) for i in range(LONG - 2)]
    chain[at] = ODD[odd]
    first = 16
    base = TABLE if table else rig.layout.desc + 16 * first
    for i, (gpa, length, flags) in enumerate(chain):
        more = NEXT if i < LONG - 1 else 0
        entry = (gpa, length, flags | more, i + 1 + (0 if table else first))
        rig.memory.write(base + 16 * i, struct.pack("<QIHH", *entry))
    if table:
        rig.driver.write_desc(first, TABLE, 16 * LONG, INDIRECT)
    rig.driver.make_available(first)
    rig.offer([(DATA, 5)], [])
    (native, error), (oracle, wrong) = described(rig.ring), described(model(rig))
    assert (native, bool(error)) == (oracle, bool(wrong))
    if error and odd != "too much":
        assert f"descriptor {at if table else first + at}" in error


@pytest.mark.parametrize("length", range(1, 12))
def test_a_loop_of_any_length_ends(length: int) -> None:
    """... in the table that it is in, after as many descriptors as in the model."""
    for size in (2, 4, 8, 16):
        rig = Rig(size=size)
        ring = model(rig)
        for a, b in pairwise([*range(min(length, size)), 0]):
            rig.driver.write_desc(a, DATA, 1, NEXT | WRITE, b)
        rig.driver.make_available(0)
        rig.driver.publish()
        native, error = described(rig.ring)
        assert (native, bool(error)) == ([], bool(described(ring)[1]))
        assert f"goes on after {size} descriptors" in error


def test_largest_regions_are_looked_at_first_and_all_are_found() -> None:
    low, small, large = bytearray(0x2000), bytearray(0x1000), bytearray(0x4000)
    memory = MemoryMap([(0, low), (0x10000, small), (0x20000, large)])
    for gpa in (0x1FFE, 0x10FFE, 0x23FFE):
        memory.write(gpa, b"ab")
    assert (low[-2:], small[-2:], large[-2:]) == (b"ab", b"ab", b"ab")


@pytest.mark.parametrize("bases", [(0,), (0x10000,), (0, 0x20000), (0x30000, 0x8000), (0, 2**64 - 0x4000)])
@pytest.mark.parametrize("off", [-1, 0, 0x3FFF, 0x4000])
@pytest.mark.parametrize("length", [0, 1, 2, 0xFFFFFFFF])
def test_a_buffer_about_the_ends_of_the_first_two_regions_is_what_it_is_in_the_model(
    bases: tuple[int, ...], off: int, length: int
) -> None:
    for base in bases:
        gpa = (base + off) % 2**64
        found = []
        for make in (_native, _model):
            regions = [(gpa, bytearray(0x4000)) for gpa in bases]
            regions[0] = (regions[0][0], bytearray(0x4000 + 0x1000 * (bases[0] == 0x30000)))
            found.append(make(regions, bases[0] + 0x100, (gpa, length, WRITE)))
        assert found[0] == found[1]


def _native(regions: list[tuple[int, bytearray]], at: int, entry: tuple[int, int, int]) -> tuple[int, bool]:
    layout = _offered(regions, at, entry)
    ring = SplitRing(MemoryMap(regions), size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    return _outcome(ring)


def _model(regions: list[tuple[int, bytearray]], at: int, entry: tuple[int, int, int]) -> tuple[int, bool]:
    return _outcome(ModelSplitRing(ModelMemory(regions), _offered(regions, at, entry)))


def _offered(regions: list[tuple[int, bytearray]], at: int, entry: tuple[int, int, int]) -> RingLayout:
    """One chain of *entry* in a ring at *at*."""
    layout = RingLayout.at(at, 8)
    memory = ModelMemory(regions)
    memory.write(layout.desc, struct.pack("<QIHH", *entry, 0))
    memory.write(layout.avail + 2, b"\x01\0")
    return layout


def _outcome(ring: SplitRing | ModelSplitRing) -> tuple[int, bool]:
    found, error = described(ring)
    return sum(n for _, _, n, _, _ in found), bool(error)
