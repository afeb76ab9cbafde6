"""PackedRing with a driver that behaves: its place in memory, taking, completing, wrap counters, positions."""

import pytest

from acrn_dm._fastring import MemoryMap, PackedRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from acrn_dm.ring.position import RingPosition
from tests.ring.fastring_rig import DATA, HIGH, OUTSIDE, REGION_BYTES, RING, TABLE, TOUCHING
from tests.ring.packed_rig import AVAIL, NEXT, USED, WRAP, WRITE, PackedRig

EVENTS = {"driver": RING + 0x100, "device": RING + 0x104}


@pytest.mark.parametrize("size", [0, 32769, 65536])
def test_ring_of_bad_size_raises_guest_error(size: int) -> None:
    with pytest.raises(GuestError, match="up to 32768"):
        PackedRing(PackedRig().memory, size=size, desc=RING, **EVENTS)


@pytest.mark.parametrize("shift", [{"desc": 8}, {"driver": 2}, {"device": 2}])
def test_area_that_is_misaligned_raises_guest_error(shift: dict[str, int]) -> None:
    """Conformance row d.packed.align: 16, 4 and 4."""
    areas = {"desc": RING, **EVENTS}
    with pytest.raises(GuestError, match="aligned"):
        PackedRing(PackedRig().memory, size=8, **{name: at + shift.get(name, 0) for name, at in areas.items()})


def test_areas_at_their_least_alignment_work() -> None:
    """Conformance row d.packed.align."""
    rig = PackedRig()
    layout = packed_layout(RING + 16, 5, 4, gap=4)
    driver = PackedDriverRing(rig.memory, layout)
    ring = PackedRing(rig.memory, size=5, desc=layout.desc, driver=layout.avail, device=layout.used)
    assert [at % 8 for at in (layout.avail, layout.used)] == [4, 4]
    head = driver.add_chain([(DATA, 4)])
    driver.publish()
    ring.push(ring.pop_batch()[0], 0)
    assert ring.publish()
    assert driver.used() == [(head, 0)]


@pytest.mark.parametrize("bad", [OUTSIDE, TOUCHING - 16, HIGH + REGION_BYTES - 16])
def test_descriptor_ring_not_within_one_region_raises_guest_error(bad: int) -> None:
    with pytest.raises(GuestError, match="not within one region"):
        PackedRing(PackedRig().memory, size=8, desc=bad, **EVENTS)


def test_ring_of_maximal_size_works_to_its_last_slot() -> None:
    memory = MemoryMap([(0, bytearray(1 << 20))])
    layout = packed_layout(0, 32768)
    driver = PackedDriverRing(memory, layout, start=32767)
    at = driver.position.base & 0xFFFF
    ring = PackedRing(memory, size=32768, desc=0, driver=layout.avail, device=layout.used, next_avail=at, next_used=at)
    head = driver.add_chain([(1 << 19, 4), (1 << 19, 4)])
    driver.publish()
    ring.push(ring.pop_batch()[0], 0)
    ring.publish()
    assert driver.used() == [(head, 0)]
    assert ring.next_avail == 1  # past the end, wrap counter 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_packed_size_any_goes_round_many_times(size: int) -> None:
    """Conformance rows d.packed.size_any, d.packed.wrap_init and d.packed.one_used: lists of varying length."""
    rig = PackedRig(size)
    for n in range(7 * size):
        length = 1 + n % min(size, 3)
        head = rig.offer([(DATA + i, 1) for i in range(length)], [])
        rig.complete(rig.pop())
        assert rig.driver.used() == [(head, 0)]
    assert rig.ring.in_flight == 0
    assert rig.driver.free_descriptors == size


def test_packed_used_flags_are_the_wrap_counter_of_each_lap() -> None:
    """Conformance row d.packed.used_flags."""
    rig = PackedRig(2)
    seen = []
    for _ in range(5):
        slot = rig.driver.last_used % 2
        rig.offer([(DATA, 1)], [])
        rig.complete(rig.pop())
        seen.append(rig.slot(slot)[3])
        rig.driver.used()
    assert seen == [AVAIL | USED, AVAIL | USED, 0, 0, AVAIL | USED]


def test_packed_used_len_and_write_flag_say_what_was_written() -> None:
    """Conformance rows d.packed.used_write_flag and d.packed.used_len; a status at the end counts as no byte."""
    rig = PackedRig()
    rig.offer([(DATA, 4)], [])
    rig.offer([], [(DATA, 8)])
    rig.offer([], [(DATA, 8)])
    read, written, untouched = rig.ring.pop_batch()
    rig.ring.push(read)
    rig.ring.push(written, 5)
    rig.ring.push(untouched, 0)
    rig.ring.publish()
    assert [(rig.slot(n)[1], rig.slot(n)[3] & WRITE) for n in range(3)] == [(0, 0), (5, WRITE), (0, WRITE)]


def test_row_34_packed_id_last_and_one_used_for_a_list() -> None:
    """Row 34 of vmm-anchors 3b; conformance rows d.packed.id_last and d.packed.one_used: garbage in the other ids."""
    rig = PackedRig(8)
    rig.driver.poke([(DATA, 1, NEXT, 77), (DATA, 1, NEXT, 0xFFFF), (DATA, 1, 0, 0)], head=5)
    rig.driver.poke([(DATA, 1, 0, 0)], head=6)
    rig.complete(*rig.ring.pop_batch())
    assert [rig.slot(n)[2:] for n in (0, 3)] == [(5, AVAIL | USED), (6, AVAIL | USED)]
    assert rig.slot(1)[2:] == (0xFFFF, AVAIL | NEXT)


def test_packed_id_any_of_16_bits_is_given_back() -> None:
    """Conformance row d.packed.id_any."""
    rig = PackedRig(4, ids=[0xFFFF, 0x8000, 40000, 4])
    heads = [rig.offer([(DATA, 1)], []) for _ in range(4)]
    rig.complete(*rig.ring.pop_batch())
    assert sorted(heads) == [4, 0x8000, 40000, 0xFFFF]
    assert rig.driver.used() == [(head, 0) for head in heads]


def test_packed_used_write_order_is_the_order_of_completion() -> None:
    """Conformance rows packed.used_write_order and packed.start_order."""
    rig = PackedRig()
    heads = [rig.offer([(DATA + i, 1)], []) for i in range(3)]
    chains = rig.ring.pop_batch()
    assert [chain.head for chain in chains] == heads
    rig.complete(chains[2], chains[0], chains[1])
    assert [rig.slot(n)[2] for n in range(3)] == [heads[2], heads[0], heads[1]]


def test_packed_multi_buffer_batch_is_shown_by_its_first_flags() -> None:
    """Conformance row d.packed.multi_buffer: until then the driver, who looks at one slot, sees nothing."""
    rig = PackedRig()
    heads = [rig.offer([], [(DATA, 8)]) for _ in range(3)]
    for chain in rig.ring.pop_batch():
        rig.ring.push(chain, 2)
    assert rig.slot(1)[3] == AVAIL | USED | WRITE
    assert rig.driver.used() == []
    rig.ring.publish()
    assert rig.driver.used() == [(head, 2) for head in heads]


def test_packed_desc_no_change_after_used() -> None:
    """Conformance row packed.desc.no_change_after_used: what was shown stays, whatever else is pushed."""
    rig = PackedRig(4)
    rig.offer([], [(DATA, 8)])
    rig.complete(rig.pop(), written=3)
    shown = rig.memory.read(rig.layout.desc, 16)
    rig.offer([], [(DATA, 8)])
    rig.complete(rig.pop(), written=8)
    rig.ring.disable_kicks()
    rig.ring.enable_kicks()
    assert rig.memory.read(rig.layout.desc, 16) == shown


def test_packed_chain_order_across_the_ring_end() -> None:
    """Conformance row packed.chain.order."""
    rig = PackedRig(5, start=3)
    rig.memory.write(DATA, b"abcdef")
    rig.offer([(DATA + 4, 2), (DATA, 2), (DATA + 2, 2)], [(HIGH, 3), (HIGH + 8, 3)])
    chain = rig.pop()
    assert chain.read() == b"efabcd"
    chain.write(b"123456")
    rig.complete(chain)
    assert (rig.memory.read(HIGH, 3), rig.memory.read(HIGH + 8, 3)) == (b"123", b"456")


def test_packed_chain_limit_is_the_ring() -> None:
    """Conformance row packed.chain.limit: a list of all its descriptors."""
    rig = PackedRig(5, start=2)
    head = rig.offer([(DATA + i, 1) for i in range(5)], [])
    chain = rig.pop()
    assert chain.readable_bytes == 5
    rig.complete(chain)
    assert rig.driver.used() == [(head, 0)]


def test_packed_mixed_lists_and_tables() -> None:
    """Conformance rows d.packed.mixed and packed.avail.immediate_access."""
    rig = PackedRig(4, indirect=True)
    for n in range(12):
        rig.memory.write(DATA, bytes([n, n + 1]))
        rig.offer([(DATA, 1), (DATA + 1, 1)], [], table=TABLE if n % 2 else None)
        chain = rig.pop()
        assert chain.read() == bytes([n, n + 1])
        rig.complete(chain)
        assert len(rig.driver.used()) == 1


def test_unpopped_chains_come_again_and_nothing_else_does() -> None:
    rig = PackedRig(5, start=3)
    heads = [rig.offer([(DATA, 1)] * n, []) for n in (1, 2, 1)]
    first, second, third = rig.ring.pop_batch()
    with pytest.raises(ValueError, match="popped last"):
        rig.ring.unpop([first, second])
    rig.ring.unpop([second, third])
    assert rig.ring.in_flight == 1
    again = rig.ring.pop_batch()
    assert [chain.head for chain in again] == heads[1:]
    rig.complete(first, *again)
    assert [head for head, _ in rig.driver.used()] == heads


def test_position_is_that_of_what_was_returned_on_both_sides() -> None:
    rig = PackedRig(3)
    assert rig.ring.position == RingPosition(WRAP << 16 | WRAP)
    for _ in range(2):
        rig.offer([(DATA, 1), (DATA, 1)], [])
        rig.complete(rig.pop())
        rig.driver.used()
    rig.offer([(DATA, 1)], [])
    rig.pop()
    assert rig.ring.position == RingPosition(1 << 16 | 1)  # four descriptors on, in the second lap


def test_ring_that_another_serves_from_its_position_goes_on() -> None:
    rig = PackedRig(3)
    rig.offer([(DATA, 1), (DATA, 1)], [])
    rig.complete(rig.pop())
    rig.driver.used()
    head = rig.offer([(DATA, 1), (DATA + 1, 1)], [])
    at = rig.ring.position.base
    lay = rig.layout
    again = PackedRing(
        rig.memory, size=3, desc=lay.desc, driver=lay.avail, device=lay.used, next_avail=at & WRAP * 2 - 1,
        next_used=at >> 16,
    )  # fmt: skip
    (chain,) = again.pop_batch()
    again.push(chain, 0)
    again.publish()
    assert rig.driver.used() == [(head, 0)]


@pytest.mark.parametrize("at", [(WRAP | 3, WRAP | 3), (WRAP, WRAP | 1), (2, 1 | WRAP), (3, 3)])
def test_position_of_no_ring_of_that_size_raises_guest_error(at: tuple[int, int]) -> None:
    with pytest.raises(GuestError, match="none of a packed ring"):
        PackedRing(PackedRig().memory, size=3, desc=RING, **EVENTS, next_avail=at[0], next_used=at[1])
