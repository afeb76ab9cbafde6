"""SplitRing against a driver that breaks the rules: indices, heads, sizes, what was not negotiated."""

import threading

import pytest

from acrn_dm._fastring import SplitRing
from acrn_dm.base.errors import GuestError
from tests.ring.fastring_rig import DATA, RING, Rig, expect_broken


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
