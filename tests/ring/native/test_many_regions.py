"""MemoryMap of many regions, as a client's behind an IOMMU are, and of some that a device may only read."""

import random

import pytest

from acrn_dm._fastring import MemoryMap, PackedRing, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout

PAGE = 4096
RING, SIZE = 0, 16
PAGES = 0x100_0000
FIXED = 0x2000_0000  # only read
FORMATS = ("split", "packed")


def paged(count: int) -> tuple[MemoryMap, list[bytearray]]:
    """Room for a ring, *count* pages that touch, larger ones so that these are not found at once, and FIXED."""
    pages = [bytearray([n % 251]) * PAGE for n in range(count)]
    large = [(0x1000_0000 + 0x10_0000 * n, bytearray(2 * PAGE)) for n in range(8)]
    regions = [(RING, bytearray(4 * PAGE)), *large, *((PAGES + PAGE * n, page) for n, page in enumerate(pages))]
    random.Random(1).shuffle(regions)
    return MemoryMap(regions, readable=[(FIXED, b"f" * PAGE), (PAGES + PAGE * count, b"e" * PAGE)]), pages


class Rig:
    """A ring of either format in ``paged`` memory."""

    def __init__(self, form: str, count: int = 64, *, indirect: bool = True) -> None:
        self.memory, self.pages = paged(count)
        if form == "split":
            layout = RingLayout.at(RING, SIZE)
            self.driver: DriverRing | PackedDriverRing = DriverRing(self.memory, layout)
            self.ring: SplitRing | PackedRing = SplitRing(
                self.memory, size=SIZE, desc=layout.desc, avail=layout.avail, used=layout.used, indirect=indirect
            )
        else:
            layout = packed_layout(RING, SIZE)
            self.driver = PackedDriverRing(self.memory, layout)
            self.ring = PackedRing(
                self.memory, size=SIZE, desc=layout.desc, driver=layout.avail, device=layout.used, indirect=indirect
            )

    def offer(self, out: list[tuple[int, int]], in_: list[tuple[int, int]], table: int | None = None) -> None:
        self.driver.add_chain(out, in_, table)
        self.driver.publish()


def test_each_region_is_found_and_nothing_between_them() -> None:
    pick = random.Random(2)
    regions, at = [], 0
    for n in range(300):
        at += pick.choice((0, 1, PAGE))
        regions.append((at, bytearray([n % 251]) * pick.choice((1, 16, PAGE))))
        at += len(regions[-1][1])
    pick.shuffle(regions)
    memory = MemoryMap(regions[:200], readable=regions[200:])
    ram = bytearray(at)
    held = bytearray(at)
    for gpa, content in regions:
        ram[gpa : gpa + len(content)] = content
        held[gpa : gpa + len(content)] = b"\1" * len(content)
    for _ in range(2000):
        gpa, length = pick.randrange(at), pick.choice((1, 2, 40, 9000))
        if all(held[gpa : gpa + length]) and gpa + length <= at:
            assert memory.read(gpa, length) == ram[gpa : gpa + length]
        else:
            with pytest.raises(GuestError):
                memory.read(gpa, length)


@pytest.mark.parametrize("form", FORMATS)
def test_buffer_lies_across_many_regions(form: str) -> None:
    rig = Rig(form)
    rig.offer([(PAGES + 5, 60 * PAGE)], [(PAGES + 60 * PAGE + 5, 3 * PAGE)])
    (chain,) = rig.ring.pop_batch()
    assert chain.read() == b"".join(rig.pages)[5 : 5 + 60 * PAGE]
    chain.write(b"w" * 3 * PAGE)
    assert bytes(rig.pages[62]) == b"w" * PAGE
    assert chain.writable_ranges() == [(PAGES + 60 * PAGE + 5, 3 * PAGE)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", [(FIXED, 1), (FIXED + PAGE - 1, 1), (PAGES + 63 * PAGE, PAGE + 1)])
def test_region_that_is_only_read_is_not_written(form: str, place: tuple[int, int]) -> None:
    rig = Rig(form)
    rig.offer([place], [])
    assert rig.ring.pop_batch()[0].readable_bytes == place[1]
    rig.offer([], [place])
    with pytest.raises(GuestError, match="leaves RAM"):
        rig.ring.pop_batch()
    with pytest.raises(GuestError, match="not all writable"):
        rig.memory.write(place[0], b"x" * place[1])


def test_ring_in_what_is_only_read_is_refused() -> None:
    memory, _ = paged(1)
    layout = RingLayout.at(FIXED, SIZE)
    with pytest.raises(GuestError, match="not within one region"):
        SplitRing(memory, size=SIZE, desc=layout.desc, avail=layout.avail, used=layout.used)


@pytest.mark.parametrize("form", FORMATS)
def test_chain_in_more_pieces_than_a_ring_has_room_for_breaks_it(form: str) -> None:
    """Buffers that overlap: each of 100 descriptors names 1024 pages."""
    rig = Rig(form, 1024)
    table = RING + 2 * PAGE
    rig.offer([(PAGES, 1024 * PAGE)] * 100, [], table)
    with pytest.raises(GuestError, match="pieces of memory"):
        rig.ring.pop_batch()
    with pytest.raises(GuestError, match="pieces of memory"):
        rig.ring.waiting()


@pytest.mark.parametrize("form", FORMATS)
def test_all_pages_at_once_are_a_chain(form: str) -> None:
    rig = Rig(form, 3000)
    rig.offer([(PAGES, 3000 * PAGE)], [])
    assert rig.ring.pop_batch()[0].read() == b"".join(rig.pages)


def test_more_regions_than_there_can_be_raise_value_error() -> None:
    ram = bytearray(1)
    MemoryMap([], readable=[(n, ram) for n in range(1 << 16)])
    with pytest.raises(ValueError, match="more than 65536"):
        MemoryMap([], readable=[(n, ram) for n in range((1 << 16) + 1)])


def test_buffers_of_small_regions_are_held_and_let_go_of() -> None:
    memory, pages = paged(20)
    with pytest.raises(BufferError):
        pages[0].extend(b"x")
    memory.close()
    pages[0].extend(b"x")
    with pytest.raises(ValueError, match="closed"):
        memory.read(PAGES, 1)
