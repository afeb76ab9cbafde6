"""acrn_dm._fastring against a driver that breaks the rules.

Rows 1-39 of the table of other device models' bugs that concern a split ring's walk have a test each, by number and
with the bug's identifier. What must come of it: GuestError, which the transport turns into DEVICE_NEEDS_RESET, in
bounded time, with nothing outside RAM touched. Rows about packed rings, IN_ORDER or a device's parser are not for here.
"""

import mmap
import threading
from collections.abc import Callable

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC, RingLayout
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import DATA, HIGH, LOW, OUTSIDE, REGION_BYTES, RING, TABLE, TOUCHING, Rig

TOUCHING_END = TOUCHING + REGION_BYTES


def expect_broken(rig: Rig, message: str) -> None:
    """The next pop blames the guest, and from then on every call does."""
    ring = rig.ring
    calls: tuple[Callable[[], object], ...] = (
        ring.pop_batch,
        ring.publish,
        ring.avail_idx,
        ring.enable_kicks,
        ring.disable_kicks,
        lambda: ring.unpop([]),
    )
    for call in calls:
        with pytest.raises(GuestError, match=message):
            call()
    assert ring.broken is True


def table_of(*descriptors: tuple[int, int, int, int]) -> bytes:
    """Bytes of an indirect table."""
    return b"".join(DESC.pack(*d) for d in descriptors)


def drain(ring: SplitRing, batch: int = 64) -> None:
    """Complete everything that is there, unread."""
    while chains := ring.pop_batch(batch):
        for chain in chains:
            ring.push(chain, 0)
        ring.publish()


# Loops


@pytest.mark.parametrize("size", [2, 8, 256])
def test_row_01_circular_chain_breaks_the_ring(size: int) -> None:
    """CVE-2019-9547 (SPDK): circular chain not detected."""
    rig = Rig(size=size)
    rig.offer_raw((DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0))
    expect_broken(rig, f"after {size} descriptors, so it loops")


def test_row_02_self_loop_of_length_zero_ends() -> None:
    """DPDK cc7301908c: a descriptor of length 0 that is its own next never ended."""
    rig = Rig()
    rig.offer_raw((DATA, 0, NEXT | WRITE, 0))
    expect_broken(rig, "loops")


@pytest.mark.parametrize("n_entries", [1, 2, 64, 4096])
def test_row_03_loop_in_an_indirect_table_breaks_the_ring(n_entries: int) -> None:
    """DPDK 4e282bc6c5, 450539b47e: loop through an indirect table."""
    rig = Rig(indirect=True)
    rig.memory.write(TOUCHING - 16, table_of((DATA, 1, NEXT, 0)))
    rig.offer_raw((TOUCHING - 16, 16 * n_entries, INDIRECT, 0))
    expect_broken(rig, f"after {min(n_entries, 1024)} descriptors")


def test_row_03_loop_in_a_table_after_direct_descriptors_counts_them_too() -> None:
    rig = Rig(size=8, indirect=True)
    rig.memory.write(TOUCHING, table_of((DATA, 1, NEXT, 0)))
    rig.offer_raw((DATA, 1, NEXT, 1), (TOUCHING, REGION_BYTES, INDIRECT, 0))
    expect_broken(rig, "after 1024 descriptors")


def test_row_04_head_and_next_outside_the_table_break_the_ring_at_every_step() -> None:
    """DPDK 6ec1778134: the control queue's walk had no index bound and no counter. Here one walk serves every queue."""
    rig = Rig(size=8)
    rig.offer_raw((DATA, 1, NEXT, 1), (DATA, 1, NEXT, 8))
    expect_broken(rig, "descriptor 1: next is 8")


@pytest.mark.parametrize("head", [8, 0x7FFF, 0xFFFF])
def test_row_04_head_outside_the_table_breaks_the_ring(head: int) -> None:
    rig = Rig(size=8)
    rig.offer_raw(head=head)
    expect_broken(rig, f"entry 0 names descriptor {head}, outside the table")


@pytest.mark.parametrize("next_", [3, 0xFFFF])
def test_row_04_next_outside_an_indirect_table_breaks_the_ring(next_: int) -> None:
    rig = Rig(size=8, indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 1, NEXT, next_)))
    rig.offer_raw((TABLE, 48, INDIRECT, 0))
    expect_broken(rig, f"next is {next_}")


# Indices


@pytest.mark.parametrize("start", [0, 100, 65535])
@pytest.mark.parametrize("jump", [9, 0x8000, 0xFFFF], ids=["size+1", "0x8000", "back-1"])
def test_row_05_avail_idx_jump_breaks_the_ring(jump: int, start: int) -> None:
    """ACRN ace5ef44e: a jump of avail.idx was taken for work, and getchain ran endlessly."""
    rig = Rig(size=8, start=start)
    rig.driver.set_avail_idx(start + jump)
    expect_broken(rig, "more than the queue size")


def test_row_05_avail_idx_jump_is_found_by_enable_kicks_too() -> None:
    rig = Rig(size=8)
    rig.driver.set_avail_idx(9)
    with pytest.raises(GuestError, match="more than the queue size"):
        rig.ring.enable_kicks()


def test_row_05_avail_idx_jump_is_found_by_avail_idx_too() -> None:
    rig = Rig(size=8)
    rig.driver.set_avail_idx(9)
    with pytest.raises(GuestError, match="more than the queue size"):
        rig.ring.avail_idx()


def test_row_06_same_head_without_completion_is_bounded_by_the_queue_size() -> None:
    """CVE-2016-5403 (QEMU): more chains in flight than the queue has descriptors made the process grow."""
    rig = Rig(size=4)
    rig.driver.write_desc(0, DATA, 1)
    for _ in range(4):
        rig.driver.make_available(0)
    rig.driver.publish()
    assert [c.head for c in rig.ring.pop_batch()] == [0]
    expect_broken(rig, "still in flight")
    assert rig.ring.in_flight == 1


def test_row_07_driver_that_always_adds_one_does_not_hold_the_device() -> None:
    """CLH fbcf2fd6b: the drain loop looked at avail.idx again each turn. A batch looks once and takes at most size."""
    rig = Rig(size=4)
    stop = threading.Event()

    def produce() -> None:
        idx = 0
        while not stop.is_set():
            idx = rig.ring.next_avail + 4
            rig.driver.set_avail_idx(idx)

    for i in range(4):
        rig.driver.write_desc(i, DATA, 1)
        rig.driver.set_avail_entry(i, i)
    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(200):
            batch = rig.ring.pop_batch(64)
            assert len(batch) <= 4
            for chain in batch:
                rig.ring.push(chain)
            rig.ring.publish()
    finally:
        stop.set()
        producer.join()


def test_row_08_nothing_old_runs_again_after_the_index_became_invalid() -> None:
    """rust-vmm d951283: an iterator made on an invalid queue walked chains of earlier requests."""
    rig = Rig(size=8)
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    for chain in rig.ring.pop_batch():
        rig.complete(chain)
    rig.driver.set_avail_idx(2)
    expect_broken(rig, "more than the queue size")


def test_row_36_more_than_65536_chains_on_a_small_ring_stay_in_step() -> None:
    """DPDK 38e6400387: a ring index was not masked by the size."""
    rig = Rig(size=2)
    rig.driver.write_desc(0, DATA, 1)
    for i in range(65540):
        rig.driver.set_avail_entry(i, 0)
        rig.driver.set_avail_idx(i + 1)
        rig.ring.push(rig.pop())
        rig.ring.publish()
    assert rig.driver.used_idx() == rig.ring.next_avail == 65540 & 0xFFFF


def test_row_37_ring_filled_to_the_last_entry_is_not_taken_for_empty() -> None:
    """SPDK 808a2b05c2: a full ring was seen as empty."""
    rig = Rig(size=8)
    for _ in range(8):
        rig.driver.add_chain([(DATA, 1)])
    rig.driver.publish()
    assert len(rig.ring.pop_batch()) == 8


# Length zero


@pytest.mark.parametrize(
    "lengths", [(0, 3, 3, 3), (3, 0, 3, 3), (3, 3, 3, 0), (0, 0, 0, 0)], ids=["first", "middle", "last", "all"]
)
def test_row_09_row_10_zero_length_descriptors_are_skipped(lengths: tuple[int, ...]) -> None:
    """QEMU 1e7aed7014: endless loop. crosvm c2b694fb3: refused though harmless; we skip them, wherever they point."""
    rig = Rig(size=8)
    rig.offer([(DATA if n else OUTSIDE, n) for n in lengths[:2]], [(HIGH if n else OUTSIDE, n) for n in lengths[2:]])
    chain = rig.pop()
    assert (chain.readable_bytes, chain.writable_bytes) == (sum(lengths[:2]), sum(lengths[2:]))
    assert chain.read() == bytes(sum(lengths[:2]))


# Indirect tables


@pytest.mark.parametrize("n_entries", [65536, 2**24])
def test_row_12_indirect_table_larger_than_memory_breaks_the_ring(n_entries: int) -> None:
    """CVE-2011-2212 (QEMU): indirect table larger than the buffer it was read into."""
    rig = Rig(indirect=True)
    rig.offer_raw((TABLE, 16 * n_entries, INDIRECT, 0))
    expect_broken(rig, "indirect table not in RAM")


def test_row_12_indirect_chain_longer_than_the_limit_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.offer([], [(DATA, 1)] * 1025, table=TOUCHING)
    expect_broken(rig, "after 1024 descriptors")


@pytest.mark.parametrize("length", [0, 8, 15, 17, 0xFFFFFFFF])
def test_row_13_indirect_length_not_a_multiple_of_16_breaks_the_ring(length: int) -> None:
    """QEMU 7423192912, 6dbdc271f56b: an indirect table of length 0 met an assertion."""
    rig = Rig(indirect=True)
    rig.offer_raw((TABLE, length, INDIRECT, 0))
    expect_broken(rig, f"indirect table of {length} bytes")


def test_row_14_indirect_without_negotiation_breaks_the_ring() -> None:
    """QEMU ac8fc4ccac: indirect accepted without negotiation."""
    rig = Rig(indirect=False)
    rig.offer([(DATA, 1)], [], table=TABLE)
    expect_broken(rig, "not negotiated")


@pytest.mark.parametrize("offset", [1, 2, 7, 8])
def test_row_15_indirect_table_at_an_odd_address_works(offset: int) -> None:
    """rust-vmm 922f2e5: demanded an alignment that the specification does not."""
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abc")
    rig.offer([(DATA, 3)], [(HIGH, 5)], table=TABLE + offset)
    chain = rig.pop()
    assert (chain.read(), chain.writable_bytes) == (b"abc", 5)


def test_row_16_indirect_then_direct_in_one_batch_have_each_its_own_bounds() -> None:
    """QEMU bbc1c327d7: the bound of an indirect table was still in force for the next chain."""
    rig = Rig(size=8, indirect=True)
    rig.offer([(DATA, 1)], [], table=TABLE)
    rig.offer([(DATA, 1)] * 5, [])
    rig.offer([(DATA, 1)] * 12, [], table=TABLE + 0x100)
    assert [c.readable_bytes for c in rig.ring.pop_batch()] == [1, 5, 12]


def test_row_16_direct_chain_after_a_long_table_is_bounded_by_the_queue_again() -> None:
    rig = Rig(size=8, indirect=True)
    rig.offer([(DATA, 1)] * 12, [], table=TABLE)
    rig.pop()
    rig.driver.write_desc(1, DATA, 1, NEXT, 1)
    rig.driver.make_available(1)
    rig.driver.publish()
    expect_broken(rig, "after 8 descriptors")


def test_indirect_table_in_an_indirect_table_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((TABLE, 16, INDIRECT, 0)))
    rig.offer_raw((TABLE, 16, INDIRECT, 0))
    expect_broken(rig, "indirect itself")


def test_indirect_table_that_is_the_descriptor_table_itself_is_still_nested() -> None:
    rig = Rig(indirect=True)
    rig.offer_raw((RING, 16 * 8, INDIRECT, 0))
    expect_broken(rig, "indirect itself")


def test_row_32_indirect_with_next_breaks_the_ring() -> None:
    """CVE-2026-16457 (QEMU, there on a packed ring): INDIRECT and NEXT in one descriptor."""
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 1, 0, 0)))
    rig.offer_raw((TABLE, 16, INDIRECT | NEXT, 1))
    expect_broken(rig, "both INDIRECT and NEXT")


@pytest.mark.parametrize("table", [OUTSIDE, TOUCHING_END - 16, HIGH - 16, 2**64 - 16])
def test_indirect_table_partly_outside_ram_breaks_the_ring(table: int) -> None:
    rig = Rig(indirect=True)
    rig.offer_raw((table, 32, INDIRECT, 0))
    expect_broken(rig, "indirect table not in RAM")


# Addresses


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


def test_row_21_sum_of_lengths_past_32_bits_breaks_the_ring() -> None:
    """crosvm 7f64f5030: the sum of the lengths overflowed."""
    mapping = mmap.mmap(-1, 1 << 31)  # only its first pages are touched
    memory = MemoryMap([(0, mapping)])
    layout = RingLayout.at(RING, 8)
    half = (1 << 31) - 0x10000
    rest = 0x20000
    for i, (length, flags) in enumerate([(half, NEXT), (half, NEXT), (rest - 1, NEXT | WRITE), (1, WRITE)]):
        memory.write(layout.desc + 16 * i, DESC.pack(0x10000 if length == half else 0, length, flags, i + 1))
    memory.write(layout.avail + 2, b"\x01\0")
    ring = SplitRing(memory, size=8, desc=layout.desc, avail=layout.avail, used=layout.used)
    with pytest.raises(GuestError, match="a chain of 4294967296 bytes"):
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


@pytest.mark.parametrize("batch", [1, 4])
def test_row_22_a_bad_chain_is_met_at_the_same_place_whatever_the_batch_size(batch: int) -> None:
    """CVE-2020-10725 (DPDK): the batch path left a check out."""
    rig = Rig(size=8)
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    rig.offer([(OUTSIDE, 1)], [])
    rig.offer([(DATA, 1)], [])
    with pytest.raises(GuestError, match="descriptor 3: the buffer at gpa 0x50000000 leaves RAM"):
        drain(rig.ring, batch)
    assert rig.driver.used() == [(0, 0), (1, 0), (2, 0)]


def test_row_23_row_24_fields_changed_after_the_pop_have_no_effect() -> None:
    """CVE-2024-51563 (bhyve), DPDK 48cae0bfa6: len and flags were read a second time after their check."""
    rig = Rig()
    head = rig.offer([], [(DATA, 4)])
    chain = rig.pop()
    rig.driver.write_desc(head, OUTSIDE, 0xFFFFFFFF, NEXT, 7)
    rig.driver.set_avail_entry(0, 0xFFFF)
    assert (chain.writable_bytes, chain.write(b"abcdefgh")) == (4, 4)
    rig.complete(chain)
    assert (rig.memory.read(DATA, 5), rig.driver.used_element(0)) == (b"abcd\0", (head, 4))


def test_row_23_row_24_fields_flipping_while_the_device_walks_give_one_value_or_the_other() -> None:
    """A second thread flips len and flags; the walk runs without the GIL. A length checked is the length used."""
    rig = Rig(size=2)
    ring = rig.ring
    stop = threading.Event()
    good, bad = DESC.pack(TOUCHING_END - 16, 16, WRITE, 0), DESC.pack(TOUCHING_END - 16, 0xFFFF, NEXT, 0xFFFF)

    def flip() -> None:
        while not stop.is_set():
            rig.memory.write(rig.layout.desc, bad)
            rig.memory.write(rig.layout.desc, good)

    rig.memory.write(rig.layout.desc, good)
    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        for _ in range(300):
            rig.driver.make_available(0)
            rig.driver.publish()
            try:
                chain = rig.pop()
            except GuestError:
                ring = SplitRing(
                    rig.memory,
                    size=2,
                    desc=rig.layout.desc,
                    avail=rig.layout.avail,
                    used=rig.layout.used,
                    next_avail=rig.driver.published_avail,
                )
                rig.ring.close()
                rig.ring = ring
                continue
            assert (chain.readable_bytes, chain.writable_bytes) in {(0, 16)}
            rig.complete(chain)
    finally:
        stop.set()
        flipper.join()


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


@pytest.mark.parametrize("table", [None, TABLE])
def test_row_28_readable_after_writable_breaks_the_ring(table: int | None) -> None:
    """crosvm c8c25c69d: readable after writable was not refused everywhere."""
    rig = Rig(indirect=True)
    chain = [(DATA, 4, WRITE | NEXT, 1), (DATA, 4, 0, 0)]
    if table is None:
        rig.offer_raw(*chain)
    else:
        rig.memory.write(table, table_of(*chain))
        rig.offer_raw((table, 32, INDIRECT, 0))
    expect_broken(rig, "descriptor 1: device-readable after")


def test_row_28_readable_in_a_table_after_writable_direct_descriptors_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 4, 0, 0)))
    rig.offer_raw((DATA, 4, WRITE | NEXT, 1), (TABLE, 16, INDIRECT, 0))
    expect_broken(rig, "device-readable after")


def test_row_29_head_already_in_flight_breaks_the_ring() -> None:
    """CVE-2026-45782 (CLH block): two chains with one head under asynchronous I/O, a use after free."""
    rig = Rig()
    head = rig.offer([(DATA, 4)], [])
    rig.pop()
    rig.driver.make_available(head)
    rig.driver.publish()
    expect_broken(rig, f"names descriptor {head}, whose chain is still in flight")


def test_row_29_head_returned_may_come_again() -> None:
    rig = Rig()
    head = rig.offer([(DATA, 4)], [])
    rig.complete(rig.pop())
    rig.driver.make_available(head)
    rig.driver.publish()
    assert rig.pop().head == head


@pytest.mark.parametrize("size", [32769, 65536, 2**31, 2**32 - 1])
def test_row_31_queue_larger_than_the_maximum_is_refused(size: int) -> None:
    """QEMU d530f2dfbd2d: a queue size above what was allocated was accepted."""
    with pytest.raises(GuestError, match="power of two up to 32768"):
        SplitRing(Rig().memory, size=size, desc=RING, avail=RING, used=RING)


@pytest.mark.parametrize("event", [0, 3, 7, 8, 0xFFFF])
def test_row_33_whole_ring_in_one_publish_with_event_idx_signals_when_the_event_is_passed(event: int) -> None:
    """QEMU 750539c4c4 (packed): no interrupt when the used index ran round between two signals. Split: at most size."""
    rig = Rig(size=8, event_idx=True)
    rig.driver.set_used_event(event)
    for _ in range(8):
        rig.offer([(DATA, 1)], [])
    for chain in rig.ring.pop_batch():
        rig.ring.push(chain)
    assert rig.ring.publish() is (event < 8)


@pytest.mark.parametrize("event_idx", [False, True])
def test_row_38_event_idx_acts_only_when_negotiated(event_idx: bool) -> None:
    """kvmtool 717a3ab: the feature's bit number was used as its mask, so it was never on."""
    rig = Rig(event_idx=event_idx)
    rig.driver.set_avail_flags(1)  # no interrupts, by the flag
    rig.driver.set_used_event(0)  # an interrupt at once, by the event
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is event_idx


# What a broken ring leaves intact


def test_chains_popped_before_the_fault_are_still_readable_but_cannot_be_pushed() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"kept")
    rig.offer([(DATA, 4)], [])
    chain = rig.pop()
    rig.offer([(OUTSIDE, 4)], [])
    expect_broken(rig, "leaves RAM")
    with pytest.raises(GuestError, match="leaves RAM"):
        rig.ring.push(chain)
    assert chain.read() == b"kept"


def test_broken_ring_closes_and_a_new_one_in_its_place_works() -> None:
    rig = Rig()
    rig.offer([(OUTSIDE, 4)], [])
    expect_broken(rig, "leaves RAM")
    rig.ring.close()
    rig.memory.close()
    assert Rig().ring.pop_batch() == []


def test_rings_laid_over_each_other_corrupt_only_the_guests_own_memory() -> None:
    memory = MemoryMap([(0, bytearray(4096))])
    memory.write(0, b"\x01\x00" * 64)
    ring = SplitRing(memory, size=4, desc=0, avail=0, used=0)
    with pytest.raises(GuestError):
        drain(ring)
    assert memory.read(128, 4096 - 128) == bytes(4096 - 128)
