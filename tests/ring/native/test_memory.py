"""MemoryMap: what is RAM, copies in and out, and who keeps a mapping alive."""

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from tests.ring.fastring_rig import DATA, HIGH, LOW, OUTSIDE, REGION_BYTES, TOUCHING, Rig


@pytest.mark.parametrize("gpa", [LOW, DATA, TOUCHING, HIGH, HIGH + REGION_BYTES - 4])
def test_memory_write_inside_a_region_is_read_back(gpa: int) -> None:
    memory = Rig().memory
    memory.write(gpa, b"abcd")
    assert memory.read(gpa, 4) == b"abcd"


def test_memory_access_across_touching_regions_uses_both_mappings() -> None:
    rig = Rig()
    rig.memory.write(TOUCHING - 2, b"abcd")
    assert rig.memory.read(TOUCHING - 2, 4) == b"abcd"
    assert (rig.mappings[0][-2:], rig.mappings[1][:2]) == (b"ab", b"cd")


@pytest.mark.parametrize(
    ("gpa", "length"),
    [
        (OUTSIDE, 1),
        (TOUCHING + REGION_BYTES - 1, 2),
        (HIGH - 1, 2),
        (HIGH + REGION_BYTES, 1),
        (2**64 - 1, 2),
        (2**64, 1),
        (-1, 1),
        (LOW, 2**62),
    ],
)
def test_memory_access_outside_ram_raises_guest_error(gpa: int, length: int) -> None:
    memory = Rig().memory
    with pytest.raises(GuestError, match="not all RAM"):
        memory.read(gpa, length)


def test_memory_write_partly_outside_ram_changes_nothing() -> None:
    memory = Rig().memory
    end = HIGH + REGION_BYTES
    with pytest.raises(GuestError):
        memory.write(end - 2, b"abcd")
    assert memory.read(end - 2, 2) == b"\0\0"


def test_memory_region_ending_at_2_to_the_64_is_usable_to_its_last_byte_and_does_not_wrap() -> None:
    memory = MemoryMap([(2**64 - 4096, bytearray(4096)), (0, bytearray(4096))])
    memory.write(2**64 - 2, b"ab")
    assert memory.read(2**64 - 2, 2) == b"ab"
    with pytest.raises(GuestError):
        memory.read(2**64 - 2, 3)


def test_memory_write_takes_guest_memory_that_overlaps_as_source() -> None:
    ram = bytearray(b"0123456789")
    MemoryMap([(0, ram)]).write(2, memoryview(ram)[:6])
    assert ram == b"0101234589"


def test_memory_read_of_negative_length_raises_value_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        Rig().memory.read(0, -1)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([(0, bytearray(16)), (8, bytearray(16))], "overlap"),
        ([(8, bytearray(4)), (0, bytearray(16))], "overlap"),
        ([(0, bytearray())], "empty"),
        ([(2**64 - 8, bytearray(16))], "64 bits"),
        ([(-16, bytearray(16))], "64 bits"),
        ([*((i * 16, bytearray(16)) for i in range(20)), (311, bytearray(2))], "overlap"),
    ],
)
def test_memory_map_of_bad_regions_raises_value_error(regions: list[tuple[int, bytearray]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryMap(regions)


def test_memory_map_of_read_only_buffer_raises_buffer_error() -> None:
    with pytest.raises(BufferError):
        MemoryMap([(0, b"constant")])


def test_memory_map_that_failed_to_build_holds_no_export() -> None:
    ram = bytearray(16)
    with pytest.raises(ValueError, match="overlap"):
        MemoryMap([(0, ram), (0, ram)])
    ram.extend(b"resizable again")


def test_memory_map_close_while_a_ring_is_open_raises_buffer_error() -> None:
    rig = Rig()
    with pytest.raises(BufferError, match="in use"):
        rig.memory.close()
    rig.ring.close()
    rig.memory.close()
    rig.memory.close()


def test_mapping_close_before_the_memory_map_raises_buffer_error() -> None:
    rig = Rig()
    rig.ring.close()
    with pytest.raises(BufferError):
        rig.mappings[0].close()
    rig.memory.close()
    rig.mappings[0].close()


def test_memory_map_close_while_a_view_lives_raises_buffer_error() -> None:
    rig = Rig()
    rig.offer([], [(DATA, 4)])
    chain = rig.pop()
    views = chain.writable()
    rig.ring.close()
    with pytest.raises(BufferError, match="in use"):
        rig.memory.close()
    views[0][:] = b"late"
    views[0].release()
    del views, chain
    rig.memory.close()


def test_memory_map_dropped_with_its_rings_releases_the_mapping() -> None:
    rig = Rig()
    mapping = rig.mappings[0]
    rig.offer([(DATA, 4)], [])
    chain = rig.pop()
    del rig, chain
    mapping.close()


def test_closed_memory_map_raises_value_error() -> None:
    memory = MemoryMap([(0, bytearray(4096))])
    memory.close()
    with pytest.raises(ValueError, match="closed"):
        memory.read(0, 1)
    with pytest.raises(ValueError, match="closed"):
        memory.write(0, b"")
    with pytest.raises(ValueError, match="closed"):
        SplitRing(memory, size=8, desc=0, avail=0, used=0)
