"""SplitRing with a driver that behaves: its place in memory, taking, completing, indices, life cycle."""

import threading

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import RingLayout
from tests.ring.fastring_rig import (
    DATA,
    HIGH,
    OUTSIDE,
    REGION_BYTES,
    RING,
    TOUCHING,
    Rig,
)

BROKEN_SIZES = [0, 3, 6, 65536, 12345]


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


def test_pop_of_empty_ring_returns_nothing() -> None:
    assert Rig().ring.pop_batch() == []


def test_pop_before_the_driver_published_returns_nothing() -> None:
    rig = Rig()
    rig.driver.add_chain([(DATA, 1)])
    assert rig.ring.pop_batch() == []


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


@pytest.mark.parametrize("event_idx", [False, True])
def test_indices_wrap_at_65536_without_losing_a_chain(event_idx: bool) -> None:
    rig = Rig(size=4, event_idx=event_idx, start=65533)
    for _ in range(9):
        head = rig.offer([], [(DATA, 2)])
        rig.complete(rig.pop(), written=1)
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
