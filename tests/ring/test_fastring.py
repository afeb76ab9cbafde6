"""acrn_dm._fastring with a driver that behaves: memory map, chains, completion, notification, life cycle."""

import os
import pickle
import threading

import pytest

from acrn_dm._fastring import Chain, MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.driver import DriverRing, need_event
from acrn_dm.ring.layout import DESC, RingLayout
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import DATA, HIGH, LOW, OUTSIDE, REGION_BYTES, RING, TABLE, TOUCHING, Rig

BROKEN_SIZES = [0, 3, 6, 65536, 12345]


# Memory map


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
        ([(i * 16, bytearray(16)) for i in range(9)], "more than 8"),
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


# The ring's place in memory


@pytest.mark.parametrize("size", BROKEN_SIZES)
def test_ring_of_bad_size_raises_guest_error(size: int) -> None:
    with pytest.raises(GuestError, match="power of two"):
        SplitRing(Rig().memory, size=size, desc=RING, avail=RING, used=RING)


@pytest.mark.parametrize(
    ("desc", "avail", "used"), [(RING + 8, RING, RING), (RING, RING + 1, RING), (RING, RING, RING + 2)]
)
def test_ring_part_misaligned_raises_guest_error(desc: int, avail: int, used: int) -> None:
    with pytest.raises(GuestError, match="aligned"):
        SplitRing(Rig().memory, size=8, desc=desc, avail=avail, used=used)


@pytest.mark.parametrize("bad", [OUTSIDE, TOUCHING - 16, HIGH + REGION_BYTES - 16, 2**64 - 16])
@pytest.mark.parametrize("name", ["desc", "avail", "used"])
def test_ring_part_not_within_one_region_raises_guest_error(name: str, bad: int) -> None:
    with pytest.raises(GuestError, match="not within one region"):
        SplitRing(Rig().memory, size=8, **({"desc": RING, "avail": RING, "used": RING} | {name: bad}))


def test_ring_of_maximal_size_works() -> None:
    memory = MemoryMap([(0, bytearray(1 << 20))])
    layout = RingLayout.at(0, 32768)
    ring = SplitRing(memory, size=32768, desc=layout.desc, avail=layout.avail, used=layout.used, event_idx=True)
    assert ring.pop_batch() == []


def test_split_legacy_layout_with_page_aligned_used_ring_works() -> None:
    """Conformance row split.legacy.layout."""
    rig = Rig(size=64, align=4096)
    head = rig.offer([(DATA, 4)], [])
    rig.complete(rig.pop())
    assert rig.layout.used % 4096 == 0
    assert rig.driver.used() == [(head, 0)]


# Chains


def test_pop_of_empty_ring_returns_nothing() -> None:
    assert Rig().ring.pop_batch() == []


def test_pop_before_the_driver_published_returns_nothing() -> None:
    rig = Rig()
    rig.driver.add_chain([(DATA, 1)])
    assert rig.ring.pop_batch() == []


def test_chain_read_follows_the_descriptors_and_stops_at_the_end() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"hello ")
    rig.memory.write(HIGH, b"world")
    rig.offer([(DATA, 6), (HIGH, 5)], [])
    chain = rig.pop()
    assert (chain.read(8), chain.read_offset, chain.read(8), chain.read(8)) == (b"hello wo", 8, b"rld", b"")


def test_chain_read_without_length_returns_the_rest() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"abcdef")
    rig.offer([(DATA, 6)], [])
    chain = rig.pop()
    chain.read(2)
    assert chain.read() == b"cdef"


def test_chain_write_fills_descriptors_in_order_and_counts() -> None:
    rig = Rig()
    rig.offer([], [(DATA, 2), (HIGH, 4)])
    chain = rig.pop()
    assert (chain.write(b"abc"), chain.written, chain.write(b"defgh"), chain.written) == (3, 3, 3, 6)
    assert (rig.memory.read(DATA, 2), rig.memory.read(HIGH, 4)) == (b"ab", b"cdef")


def test_chain_write_at_reaches_the_status_byte_and_counts_to_its_end() -> None:
    rig = Rig()
    rig.offer([(DATA, 16)], [(DATA + 16, 8), (HIGH, 1)])
    chain = rig.pop()
    chain.write_at(chain.writable_bytes - 1, b"\x02")
    assert (rig.memory.read(HIGH, 1), chain.written) == (b"\x02", 9)


def test_chain_write_at_before_what_is_written_keeps_the_count() -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    chain.write(b"12345678")
    chain.write_at(0, b"ab")
    assert (rig.memory.read(DATA, 8), chain.written) == (b"ab345678", 8)


@pytest.mark.parametrize(("offset", "data"), [(8, b"x"), (7, b"xy"), (-1, b"x"), (0, b"123456789"), (2**40, b"x")])
def test_chain_write_at_outside_raises_value_error_and_writes_nothing(offset: int, data: bytes) -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    with pytest.raises(ValueError, match="not within"):
        chain.write_at(offset, data)
    assert (rig.memory.read(DATA, 9), chain.written) == (bytes(9), 0)


def test_chain_views_have_the_descriptors_lengths_and_direction() -> None:
    rig = Rig()
    rig.offer([(DATA, 3), (HIGH, 2)], [(DATA + 16, 7)])
    chain = rig.pop()
    assert [(len(v), v.readonly) for v in chain.readable()] == [(3, True), (2, True)]
    assert [(len(v), v.readonly) for v in chain.writable()] == [(7, False)]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, -1, [b"abc", b"de"]), (1, 3, [b"bc", b"d"]), (3, -1, [b"de"]), (5, -1, []), (9, 4, []), (0, 0, [])],
)
def test_chain_readable_cuts_views_at_offset_and_length(offset: int, length: int, expected: list[bytes]) -> None:
    rig = Rig()
    rig.memory.write(DATA, b"abc")
    rig.memory.write(HIGH, b"de")
    rig.offer([(DATA, 3), (HIGH, 2)], [])
    assert [bytes(v) for v in rig.pop().readable(offset, length)] == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, -1), (0, -2)])
def test_chain_views_of_negative_range_raise_value_error(offset: int, length: int) -> None:
    rig = Rig()
    rig.offer([(DATA, 3)], [])
    with pytest.raises(ValueError, match="negative"):
        rig.pop().readable(offset, length)


def test_chain_readv_into_writable_views_then_advance_reports_the_bytes() -> None:
    rig = Rig()
    head = rig.offer([], [(DATA, 3), (HIGH, 8)])
    chain = rig.pop()
    source, sink = os.pipe()
    os.write(sink, b"12345")
    chain.advance(os.readv(source, chain.writable()))
    os.close(source)
    os.close(sink)
    rig.complete(chain)
    assert rig.memory.read(DATA, 3) + rig.memory.read(HIGH, 2) == b"12345"
    assert rig.driver.used() == [(head, 5)]


@pytest.mark.parametrize("n", [9, -1, 2**33])
def test_chain_advance_past_the_end_raises_value_error(n: int) -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    with pytest.raises(ValueError, match="advance"):
        rig.pop().advance(n)


def test_chain_longer_than_the_inline_segments_is_whole() -> None:
    rig = Rig(size=16)
    rig.memory.write(DATA, bytes(range(16)))
    rig.offer([(DATA + i, 1) for i in range(16)], [])
    assert rig.pop().read() == bytes(range(16))


def test_chain_copy_large_enough_to_release_the_gil_is_whole() -> None:
    ram = bytearray(1 << 20)
    ram[0x80000:] = os.urandom(0x80000)
    memory = MemoryMap([(0, ram)])
    layout = RingLayout.at(RING, 2)
    driver = DriverRing(memory, layout)
    ring = SplitRing(memory, size=2, desc=layout.desc, avail=layout.avail, used=layout.used)
    driver.add_chain([(0x80000, 0x80000)], [(0x10000, 0x60000)])
    driver.publish()
    (chain,) = ring.pop_batch()
    chain.write(chain.read())
    assert ram[0x10000:0x70000] == ram[0x80000:0xE0000]


def test_framing_no_assumptions_request_in_one_byte_descriptors_reads_the_same() -> None:
    """Conformance row framing.no_assumptions."""
    rig = Rig(size=32)
    request = bytes(range(16))
    rig.memory.write(DATA, request)
    rig.offer([(DATA, 16)], [(HIGH, 4)])
    whole = rig.pop()
    pieces_head = rig.offer([(DATA + i, 1) for i in range(16)], [(HIGH + i, 1) for i in range(4)])
    pieces = rig.pop()
    assert (pieces.head, whole.read(), pieces.read()) == (pieces_head, request, request)
    assert pieces.write(b"done") == whole.write(b"done") == 4


def test_split_desc_no_write_table_leaves_descriptors_and_readable_buffers_alone() -> None:
    """Conformance rows split.desc.no_write_table, split.desc.no_write_readable."""
    rig = Rig(size=4)
    rig.memory.write(DATA, b"readable")
    rig.offer([(DATA, 8)], [(HIGH, 8)])
    before = rig.memory.read(rig.layout.desc, 16 * 4)
    chain = rig.pop()
    chain.write(b"writable")
    rig.complete(chain)
    assert (rig.memory.read(rig.layout.desc, 16 * 4), rig.memory.read(DATA, 8)) == (before, b"readable")


# Indirect tables


def test_indirect_chain_reads_and_writes_like_a_direct_one() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"hello")
    head = rig.offer([(DATA, 2), (DATA + 2, 3)], [(HIGH, 4)], table=TABLE)
    chain = rig.pop()
    assert (chain.head, chain.read(), chain.write(b"abcd")) == (head, b"hello", 4)


def test_split_indirect_ignore_write_flag_of_the_referring_descriptor() -> None:
    """Conformance row split.indirect.ignore_write_flag."""
    rig = Rig(indirect=True)
    rig.offer([(DATA, 3)], [], table=TABLE)
    rig.driver.write_desc(0, TABLE, 16, WRITE | INDIRECT)
    chain = rig.pop()
    assert (chain.readable_bytes, chain.writable_bytes) == (3, 0)


def test_split_indirect_direct_then_indirect_is_one_chain() -> None:
    """Conformance row split.indirect.direct_then_indirect."""
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abcdef")
    rig.memory.write(TABLE, DESC.pack(DATA + 3, 3, NEXT, 1) + DESC.pack(HIGH, 9, WRITE, 0))
    rig.offer_raw((DATA, 3, NEXT, 5), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (TABLE, 32, INDIRECT, 0))
    chain = rig.pop()
    assert (chain.head, chain.read(), chain.writable_bytes) == (0, b"abcdef", 9)


def test_indirect_table_across_touching_regions_works() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abcdef")
    head = rig.offer([(DATA, 2), (DATA + 2, 2), (DATA + 4, 2)], [], table=TOUCHING - 24)
    chain = rig.pop()
    assert (chain.head, chain.read()) == (head, b"abcdef")


def test_indirect_chain_longer_than_the_queue_works_up_to_1024_descriptors() -> None:
    """Linux makes such tables for block devices with seg_max above the queue size; QEMU's limit is the same 1024."""
    rig = Rig(size=2, indirect=True)
    rig.offer([], [(DATA, 1)] * 1024, table=TOUCHING)
    assert rig.pop().writable_bytes == 1024


# Completion


def test_split_used_len_before_idx_element_is_invisible_until_publish() -> None:
    """Conformance row split.used.len_before_idx."""
    rig = Rig()
    head = rig.offer([], [(DATA, 8)])
    rig.ring.push(rig.pop(), 5)
    assert (rig.driver.used_idx(), rig.driver.used_element(0)) == (0, (head, 5))
    rig.ring.publish()
    assert rig.driver.used() == [(head, 5)]


def test_push_without_count_reports_what_was_written() -> None:
    rig = Rig()
    head = rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    chain.write(b"abc")
    rig.complete(chain)
    assert rig.driver.used() == [(head, 3)]


@pytest.mark.parametrize("written", [9, -1, 2**32])
def test_push_of_more_than_is_writable_raises_value_error_and_pushes_nothing(written: int) -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    with pytest.raises(ValueError, match="writable"):
        rig.ring.push(chain, written)
    assert (rig.ring.in_flight, rig.ring.used_idx, chain.write(b"alive")) == (1, 0, 5)


def test_push_twice_raises_value_error() -> None:
    rig = Rig()
    rig.offer([(DATA, 1)], [])
    chain = rig.pop()
    rig.ring.push(chain)
    with pytest.raises(ValueError, match="not in flight"):
        rig.ring.push(chain)


def test_push_of_another_rings_chain_raises_value_error() -> None:
    one, other = Rig(), Rig()
    one.offer([(DATA, 1)], [])
    other.offer([(DATA, 1)], [])
    other.pop()
    with pytest.raises(ValueError, match="not in flight"):
        other.ring.push(one.pop())


def test_push_out_of_order_returns_chains_in_completion_order() -> None:
    rig = Rig()
    heads = [rig.offer([(DATA, 1)], []) for _ in range(3)]
    a, b, c = rig.ring.pop_batch()
    for chain in (c, a, b):
        rig.ring.push(chain)
    rig.ring.publish()
    assert [h for h, _ in rig.driver.used()] == [heads[2], heads[0], heads[1]]


def test_pushed_chain_and_its_views_are_dead() -> None:
    rig = Rig()
    rig.offer([(DATA, 1)], [(HIGH, 1)])
    chain = rig.pop()
    view = chain.writable()[0]
    rig.ring.push(chain)
    with pytest.raises(ValueError, match="released"):
        view[0] = 1
    for use in (chain.read, chain.readable, chain.writable, lambda: chain.write(b"x"), lambda: chain.advance(1)):
        with pytest.raises(ValueError, match="no longer in flight"):
            use()


def test_push_while_a_view_is_in_use_raises_buffer_error_and_pushes_nothing() -> None:
    rig = Rig()
    rig.offer([], [(HIGH, 4)])
    chain = rig.pop()
    in_use = pickle.PickleBuffer(chain.writable()[0])  # holds the buffer as a readv under way does
    with pytest.raises(BufferError):
        rig.ring.push(chain)
    assert rig.ring.used_idx == 0
    in_use.release()
    rig.ring.push(chain)


def test_pop_limit_is_kept_and_the_rest_comes_next() -> None:
    rig = Rig()
    heads = [rig.offer([(DATA, 1)], []) for _ in range(5)]
    batches = [rig.ring.pop_batch(2) for _ in range(4)]
    assert [[c.head for c in batch] for batch in batches] == [heads[:2], heads[2:4], heads[4:], []]


@pytest.mark.parametrize("limit", [0, -1])
def test_pop_limit_not_positive_raises_value_error(limit: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Rig().ring.pop_batch(limit)


def test_unpop_gives_the_last_chains_back_for_the_next_pop() -> None:
    rig = Rig()
    heads = [rig.offer([(DATA, 1)], []) for _ in range(3)]
    first, *rest = rig.ring.pop_batch()
    rig.ring.unpop(rest)
    assert (rig.ring.in_flight, rig.ring.next_avail) == (1, 1)
    assert [c.head for c in rig.ring.pop_batch()] == heads[1:]
    rig.complete(first)
    with pytest.raises(ValueError, match="no longer in flight"):
        rest[0].read()


def test_unpop_of_other_than_the_last_chains_raises_value_error_and_changes_nothing() -> None:
    rig = Rig()
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    a, b, c = rig.ring.pop_batch()
    for wrong in ([a], [c, b], [a, c], [b, b], [a, b]):
        with pytest.raises(ValueError, match="popped last"):
            rig.ring.unpop(wrong)
    assert (rig.ring.next_avail, rig.ring.in_flight) == (3, 3)


def test_unpop_of_nothing_changes_nothing() -> None:
    rig = Rig()
    rig.ring.unpop([])
    assert rig.ring.next_avail == 0


# Indices


@pytest.mark.parametrize("event_idx", [False, True])
def test_indices_wrap_at_65536_without_losing_a_chain(event_idx: bool) -> None:
    rig = Rig(size=4, event_idx=event_idx, start=65533)
    for _ in range(9):
        head = rig.offer([], [(DATA, 2)])
        rig.complete(rig.pop(), 1)
        assert rig.driver.used() == [(head, 1)]
    assert rig.ring.next_avail == rig.ring.used_idx == rig.driver.used_idx() == (65533 + 9) & 0xFFFF


def test_indices_start_where_a_saved_queue_had_stopped() -> None:
    rig = Rig(start=1234)
    assert (rig.ring.next_avail, rig.ring.used_idx, rig.ring.avail_idx()) == (1234, 1234, 1234)


def test_avail_idx_is_freshly_loaded() -> None:
    rig = Rig()
    rig.offer([(DATA, 1)], [])
    rig.ring.pop_batch()
    rig.offer([(DATA, 1)], [])
    assert (rig.ring.avail_idx(), rig.ring.next_avail) == (2, 1)


# Interrupts


def test_publish_of_nothing_wants_no_interrupt() -> None:
    assert Rig().ring.publish() is False


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False), (2, True)])
def test_split_used_notify_flag_decides_without_event_idx(flags: int, wanted: bool) -> None:
    """Conformance rows split.used_notify.flag0, split.used_notify.flag1."""
    rig = Rig()
    rig.driver.set_avail_flags(flags)
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is wanted


def test_split_used_notify_ignore_used_event_without_event_idx() -> None:
    """Conformance row split.used_notify.ignore_used_event."""
    rig = Rig()
    rig.driver.set_used_event(1000)
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is True


@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize(("event", "wanted"), [(0, True), (1, False), (0xFFFF, False), (1000, False)])
def test_split_used_notify_event_match_decides_with_event_idx(event: int, wanted: bool, flags: int) -> None:
    """Conformance rows split.used_notify.event_match, event_nomatch and ignore_flag_bit0."""
    rig = Rig(event_idx=True)
    rig.driver.set_avail_flags(flags)
    rig.driver.set_used_event(event)
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is wanted


@pytest.mark.parametrize("event", [65533, 65534, 65535, 0, 1, 2, 3])
def test_split_used_notify_event_within_a_batch_across_the_wrap(event: int) -> None:
    rig = Rig(event_idx=True, start=65534)
    rig.driver.set_used_event(event)
    for _ in range(4):
        rig.offer([(DATA, 1)], [])
    for chain in rig.ring.pop_batch():
        rig.ring.push(chain)
    assert rig.ring.publish() is (event in (65534, 65535, 0, 1)) is need_event(event, 2, 65534)


# Kicks


def test_split_avail_notify_flags_follow_disable_and_enable_without_event_idx() -> None:
    """Conformance rows split.avail_notify.flags_01, flags_advise."""
    rig = Rig()
    rig.ring.disable_kicks()
    disabled = rig.driver.used_flags()
    rig.ring.enable_kicks()
    assert (disabled, rig.driver.used_flags(), rig.driver.avail_event()) == (1, 0, 0)


def test_split_avail_notify_event_flags_0_and_event_at_the_last_index_seen() -> None:
    """Conformance rows split.avail_notify.event_flags_0, avail_event."""
    rig = Rig(event_idx=True)
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    rig.ring.disable_kicks()
    rig.ring.pop_batch()
    rig.ring.enable_kicks()
    assert (rig.driver.used_flags(), rig.driver.avail_event()) == (0, 3)


@pytest.mark.parametrize("event_idx", [False, True])
def test_driver_kicks_for_the_first_chain_after_enable_and_not_after_disable(event_idx: bool) -> None:
    rig = Rig(event_idx=event_idx)
    rig.ring.enable_kicks()
    rig.offer([(DATA, 1)], [])
    after_enable = rig.driver.wants_kick()
    rig.ring.pop_batch()
    rig.ring.disable_kicks()
    rig.offer([(DATA, 1)], [])
    assert (after_enable, rig.driver.wants_kick()) == (True, False)


@pytest.mark.parametrize("event_idx", [False, True])
def test_enable_kicks_tells_of_a_chain_that_came_since_the_last_look(event_idx: bool) -> None:
    rig = Rig(event_idx=event_idx)
    assert rig.ring.pop_batch() == []
    rig.offer([(DATA, 1)], [])
    assert rig.ring.enable_kicks() is True
    assert len(rig.ring.pop_batch()) == 1
    assert rig.ring.enable_kicks() is False


def test_enable_kicks_does_not_tell_of_chains_seen_and_left() -> None:
    """A receiver without packets leaves buffers in the ring: that must not keep it awake."""
    rig = Rig()
    rig.offer([(DATA, 1)], [])
    rig.offer([(DATA, 1)], [])
    rig.ring.pop_batch(1)
    assert rig.ring.enable_kicks() is False


def test_avail_event_stands_at_the_last_index_seen_even_when_chains_are_left() -> None:
    rig = Rig(event_idx=True)
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    rig.ring.pop_batch(1)
    rig.ring.enable_kicks()
    assert rig.driver.avail_event() == 3


def test_split_avail_notify_spurious_kick_finds_nothing_repeatedly() -> None:
    """Conformance row split.avail_notify.spurious."""
    ring = Rig().ring
    assert [ring.pop_batch() for _ in range(3)] == [[], [], []]


# Life cycle


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


def test_closed_ring_and_its_chains_raise_value_error() -> None:
    rig = Rig()
    rig.offer([(DATA, 4)], [(HIGH, 4)])
    chain = rig.pop()
    rig.ring.close()
    rig.ring.close()
    ring = rig.ring
    ring_calls = (ring.pop_batch, ring.publish, ring.avail_idx, ring.enable_kicks, ring.disable_kicks)
    for call in (*ring_calls, lambda: ring.push(chain), lambda: ring.unpop([chain])):
        with pytest.raises(ValueError, match="the ring is closed"):
            call()
    for use in (chain.read, chain.readable, chain.writable, lambda: chain.write_at(0, b"x")):
        with pytest.raises(ValueError, match="no longer in flight"):
            use()


def test_chain_made_by_hand_is_dead() -> None:
    with pytest.raises(ValueError, match="no longer in flight"):
        Chain().read()


def test_ring_that_failed_to_build_does_not_hold_the_memory() -> None:
    memory = MemoryMap([(0, bytearray(4096))])
    with pytest.raises(GuestError):
        SplitRing(memory, size=7, desc=0, avail=0, used=0)
    memory.close()


def test_chain_completed_from_another_thread_between_calls_of_the_first_is_fine() -> None:
    rig = Rig()
    head = rig.offer([(DATA, 4)], [(HIGH, 4)])
    chain = rig.pop()
    worker = threading.Thread(target=lambda: chain.write(b"done"))
    worker.start()
    worker.join()
    rig.complete(chain)
    assert rig.driver.used() == [(head, 4)]
