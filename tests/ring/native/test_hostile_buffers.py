"""The walk against a driver that breaks the rules: buffers that cross, wrap, leave RAM or are cut oddly."""

import mmap

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC, RingLayout
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import (
    DATA,
    HIGH,
    LOW,
    OUTSIDE,
    REGION_BYTES,
    RING,
    TOUCHING,
    TOUCHING_END,
    Rig,
    expect_broken,
)


def test_row_17_buffer_across_two_host_mappings_is_two_segments() -> None:
    """CVE-2013-0311 (Linux vhost): a descriptor across two regions was translated by the first only."""
    rig = Rig()
    rig.memory.write(TOUCHING - 3, b"abcdef")
    rig.offer([(TOUCHING - 3, 6)], [(TOUCHING - 4, 8)])
    chain = rig.pop()
    assert ([bytes(v) for v in chain.readable()], chain.write(b"12345678")) == ([b"abc", b"def"], 8)
    assert (rig.mappings[0][-4:], rig.mappings[1][:4]) == (b"1234", b"5678")


def test_row_17_every_buffer_of_a_full_chain_may_cross_regions() -> None:
    rig = Rig(size=64)
    rig.offer([(TOUCHING - 1, 2)] * 64, [])
    assert len(rig.pop().readable()) == 128


@pytest.mark.parametrize(
    ("gpa", "length"),
    [
        (OUTSIDE, 1),
        (TOUCHING_END - 1, 2),
        (TOUCHING - 1, REGION_BYTES + 2),
        (HIGH - 1, 2),
        (HIGH + REGION_BYTES - 1, 2),
        (HIGH + REGION_BYTES, 1),
        (DATA, 0xFFFFFFFF),
    ],
)
@pytest.mark.parametrize("flags", [0, WRITE])
def test_row_18_buffer_not_wholly_in_ram_breaks_the_ring(flags: int, gpa: int, length: int) -> None:
    """CVE-2018-1059 (DPDK): the length was not checked when an address was translated."""
    rig = Rig()
    rig.offer_raw((gpa, length, flags, 0))
    expect_broken(rig, "leaves RAM")


@pytest.mark.parametrize("size", [1, 2])
def test_row_18_buffer_through_every_touching_region_and_out_blames_the_guest_on_the_smallest_ring(size: int) -> None:
    """The segment array is at its end when RAM is: that is still the driver's fault, not a caller's."""
    rig = Rig(size=size)
    rig.offer_raw((LOW, 1 << 31, 0, 0))
    expect_broken(rig, "leaves RAM")


def test_row_19_copies_of_a_chain_never_use_a_crossing_buffer_as_one_pointer() -> None:
    """CLH 664431ff1 (vsock): a region-spanning buffer was used as one host pointer."""
    rig = Rig()
    rig.offer([], [(TOUCHING - 2, 4)])
    rig.mappings[0][-2:] = rig.mappings[1][:2] = b"\xee\xee"
    chain = rig.pop()
    chain.write_at(1, b"AB")
    assert (rig.mappings[0][-2:], rig.mappings[1][:2]) == (b"\xeeA", b"B\xee")


@pytest.mark.parametrize(("gpa", "length"), [(2**64 - 1, 2), (2**64 - 1, 1), (2**64 - 4096, 4096), (2**63, 1)])
def test_row_20_address_that_wraps_breaks_the_ring(gpa: int, length: int) -> None:
    """OpenVMM c3df92315: addr + len wraps 2^64."""
    rig = Rig()
    rig.offer_raw((gpa, length, 0, 0))
    expect_broken(rig, "leaves RAM")


def test_row_20_address_that_wraps_from_the_last_region_to_the_first_breaks_the_ring() -> None:
    memory = MemoryMap([(0, bytearray(0x10000)), (2**64 - 4096, bytearray(4096))])
    layout = RingLayout.at(RING, 8)
    ring = SplitRing(memory, size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    memory.write(layout.desc, DESC.pack(2**64 - 16, 32, 0, 0))
    memory.write(layout.avail + 2, b"\x01\0")
    with pytest.raises(GuestError, match="leaves RAM"):
        ring.pop_batch()


@pytest.mark.parametrize("flags", [(0, 0, WRITE, WRITE), (0, 0, 0, WRITE), (0, 0, 0, 0), (WRITE, WRITE, WRITE, WRITE)])
def test_row_21_sum_of_lengths_past_32_bits_breaks_the_ring(flags: tuple[int, ...]) -> None:
    """crosvm 7f64f5030: the sum of the lengths overflowed. It may do so among either kind, or only with the last."""
    mapping = mmap.mmap(-1, 1 << 31)  # only its first pages are touched
    memory = MemoryMap([(0, mapping)])
    layout = RingLayout.at(RING, 8)
    half = (1 << 31) - 0x10000
    rest = 0x20000
    for i, length in enumerate([half, half, rest - 1, 1]):
        end = 0 if i == 3 else NEXT
        memory.write(layout.desc + 16 * i, DESC.pack(0x10000 if length == half else 0, length, flags[i] | end, i + 1))
    memory.write(layout.avail + 2, b"\x01\0")
    ring = SplitRing(memory, size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    with pytest.raises(GuestError, match="a chain of 4294967296 bytes"):
        ring.pop_batch()


def test_row_21_readable_lengths_past_32_bits_are_not_lost_before_a_writable_one() -> None:
    mapping = mmap.mmap(-1, 1 << 31)
    memory = MemoryMap([(0, mapping)])
    layout = RingLayout.at(RING, 8)
    chain = [(1 << 31, NEXT), (1 << 31, NEXT), (16, WRITE)]
    for i, (length, flags) in enumerate(chain):
        memory.write(layout.desc + 16 * i, DESC.pack(0, length, flags, i + 1))
    memory.write(layout.avail + 2, b"\x01\0")
    ring = SplitRing(memory, size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    with pytest.raises(GuestError, match="a chain of 4294967312 bytes"):
        ring.pop_batch()


def test_row_21_sum_of_lengths_of_exactly_32_bits_is_a_chain() -> None:
    mapping = mmap.mmap(-1, 1 << 31)
    memory = MemoryMap([(0, mapping)])
    layout = RingLayout.at(RING, 8)
    memory.write(layout.desc, DESC.pack(0, 1 << 31, NEXT, 1) + DESC.pack(0, (1 << 31) - 1, WRITE, 0))
    memory.write(layout.avail + 2, b"\x01\0")
    ring = SplitRing(memory, size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    (chain,) = ring.pop_batch()
    assert chain.readable_bytes + chain.writable_bytes == 2**32 - 1


def test_row_25_each_byte_of_a_request_is_read_by_the_cursor_once() -> None:
    """CVE-2020-14375 (DPDK crypto): a request was read again after its check. The cursor only moves forward."""
    rig = Rig()
    rig.memory.write(DATA, b"checked!")
    rig.offer([(DATA, 8)], [])
    chain = rig.pop()
    snapshot = chain.read(8)
    rig.memory.write(DATA, b"changed!")
    assert (snapshot, chain.read()) == (b"checked!", b"")


def test_row_26_header_over_many_descriptors_is_read_whole() -> None:
    """CVE-2022-2132 (DPDK): a net header over more than two descriptors."""
    rig = Rig(size=16)
    header = bytes(range(12))
    rig.memory.write(DATA, header)
    rig.offer([(DATA + i, 1) for i in range(12)], [])
    chain = rig.pop()
    assert (chain.read(12), chain.read(1)) == (header, b"")


def test_row_27_buffer_ending_one_past_the_end_of_ram_breaks_the_ring() -> None:
    """CVE-2019-18960 (Firecracker vsock): the wrong quantity was checked, up to 64 KiB over the end of RAM."""
    rig = Rig()
    rig.offer([], [(HIGH + REGION_BYTES - 64, 64)])
    assert rig.pop().writable_bytes == 64
    rig.offer([], [(HIGH + REGION_BYTES - 63, 64)])
    expect_broken(rig, "gpa 0x10000ffc1 leaves RAM")
