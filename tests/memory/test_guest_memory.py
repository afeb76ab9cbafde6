"""acrn_dm.memory.guest_memory: layout, backing, and who may close what when."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from acrn_dm._fastring import SplitRing
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange, guest_ranges

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    it = GuestMemory.allocate([MemoryRange(gpa=0, size=2 * MIB), MemoryRange(gpa=4 * GIB, size=2 * MIB)])
    yield it
    it.close()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (256 * MIB, [(0, 256 * MIB)]),
        (2 * GIB, [(0, 2 * GIB)]),
        (2 * GIB + 2 * MIB, [(0, 2 * GIB), (4 * GIB, 2 * MIB)]),
        (5 * GIB, [(0, 2 * GIB), (4 * GIB, 3 * GIB)]),
    ],
)
def test_ram_above_2_gib_continues_at_4_gib(size: int, expected: list[tuple[int, int]]) -> None:
    assert [(r.gpa, r.size) for r in guest_ranges(size)] == expected


def test_what_was_written_is_read_in_both_regions(memory: GuestMemory) -> None:
    memory.write(0x1000, b"low")
    memory.write(4 * GIB + 0x1000, b"high")
    assert memory.read(0x1000, 3) + memory.read(4 * GIB + 0x1000, 4) == b"lowhigh"


@pytest.mark.parametrize("gpa", [2 * MIB, 2 * MIB - 1, 4 * GIB - 1, 4 * GIB + 2 * MIB, (1 << 64) - 1])
def test_access_outside_ram_blames_the_guest(memory: GuestMemory, gpa: int) -> None:
    with pytest.raises(GuestError):
        memory.read(gpa, 2)
    with pytest.raises(GuestError):
        memory.write(gpa, b"ab")


def test_hva_is_the_address_of_the_mapping(memory: GuestMemory) -> None:

    memory.write(0x10, b"\x5a")
    assert ctypes.c_uint8.from_address(memory.regions[0].hva + 0x10).value == 0x5A


def test_clear_makes_memory_read_as_zero(memory: GuestMemory) -> None:
    memory.write(0x1000, b"secret")
    memory.clear()
    assert memory.read(0x1000, 6) == bytes(6)


def test_clear_in_place_keeps_the_pages_and_makes_no_new_ones(memory: GuestMemory) -> None:
    region = memory.regions[0]
    memory.write(0x10_1000, b"secret")
    pages = os.fstat(region.fd).st_blocks
    memory.clear(in_place=True)
    assert memory.read(0x10_1000, 6) == bytes(6)
    assert os.fstat(region.fd).st_blocks == pages
    assert os.fstat(memory.regions[1].fd).st_blocks == 0


def test_close_while_a_ring_uses_the_memory_is_refused() -> None:
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=2 * MIB)])
    ring = SplitRing(memory.map, size=8, desc=0x1000, avail=0x2000, used=0x3000)
    with pytest.raises(BufferError):
        memory.close()
    ring.close()
    memory.close()


def test_close_gives_files_and_mappings_back() -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as f:
            return sum("guest-ram" in line for line in f)

    before = (set(os.listdir("/proc/self/fd")), mappings())
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=2 * MIB)])
    assert mappings() == 1
    memory.close()
    memory.close()
    assert (set(os.listdir("/proc/self/fd")), mappings()) == before


def test_impossible_size_is_a_host_error_that_says_how_much() -> None:
    with pytest.raises(HostError, match=r"allocating .* MiB of guest memory"):
        GuestMemory.allocate([MemoryRange(gpa=0, size=1 << 62)])


def resident(memory: GuestMemory, region: int = 0) -> int:
    """Bytes that the host holds for a region."""
    return os.fstat(memory.regions[region].fd).st_blocks * 512


def test_discard_gives_back_the_whole_pages_of_a_range_and_no_other(memory: GuestMemory) -> None:
    memory.write(0, b"x" * 0x5000)
    before = resident(memory)
    assert memory.discard(0x0FFF, 0x3001) == 0x3000
    assert before - resident(memory) == 0x3000
    assert memory.read(0, 0x5000) == b"x" * 0x1000 + bytes(0x3000) + b"x" * 0x1000


def test_discard_of_less_than_a_page_gives_nothing_back(memory: GuestMemory) -> None:
    memory.write(0, b"x" * 0x2000)
    assert memory.discard(1, 0x1FFE) == 0
    assert memory.read(0, 0x2000) == b"x" * 0x2000


def test_discard_over_two_regions_that_touch() -> None:
    both = GuestMemory.allocate([MemoryRange(gpa=0, size=MIB), MemoryRange(gpa=MIB, size=MIB)])
    both.write(MIB - 0x1000, b"x" * 0x2000)
    assert both.discard(MIB - 0x1000, 0x2000) == 0x2000
    assert both.read(MIB - 0x1000, 0x2000) == bytes(0x2000)
    both.close()


@pytest.mark.parametrize(("gpa", "length"), [(2 * MIB - 0x1000, 0x2000), (3 * MIB, 0x1000), (0, -1), (-4096, 4096)])
def test_discard_outside_ram_blames_the_guest_and_changes_nothing(memory: GuestMemory, gpa: int, length: int) -> None:
    memory.write(2 * MIB - 0x1000, b"x" * 0x1000)
    with pytest.raises(GuestError):
        memory.discard(gpa, length)
    assert memory.read(2 * MIB - 0x1000, 0x1000) == b"x" * 0x1000


def test_discard_leaves_pages_that_somebody_keeps(memory: GuestMemory) -> None:
    memory.keeper = "the hypervisor"
    memory.write(0, b"x" * 0x1000)
    assert memory.discard(0, 0x1000) == 0
    assert memory.kept_because == "the hypervisor keeps the guest's pages"
    assert memory.read(0, 0x1000) == b"x" * 0x1000
