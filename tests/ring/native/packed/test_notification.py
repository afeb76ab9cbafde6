"""PackedRing: when the driver wants an interrupt, and when it is asked for a kick (virtio 1.4, 2.8.10)."""

import pytest

from tests.ring.fastring_rig import DATA
from tests.ring.packed_rig import DESC, DISABLE, ENABLE, WRAP, PackedRig


def test_publish_of_nothing_wants_no_interrupt() -> None:
    assert PackedRig().ring.publish() is False


@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize(("flags", "wanted"), [(ENABLE, True), (DISABLE, False), (3, True), (0xFFF0 | DISABLE, False)])
def test_packed_event_enable_and_disable_decide(flags: int, wanted: bool, event_idx: bool) -> None:
    """Conformance rows d.packed.event_enable and d.packed.event_disable; of the reserved flag nothing may be lost."""
    rig = PackedRig(event_idx=event_idx)
    rig.driver.set_driver_event(5, flags)
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is wanted


def test_packed_event_desc_without_the_feature_is_no_wish_for_silence() -> None:
    """Conformance row d.packed.event_desc_needs_feature."""
    rig = PackedRig(event_idx=False)
    rig.driver.set_driver_event(5 | WRAP, DESC)
    rig.offer([(DATA, 1)], [])
    assert rig.complete(rig.pop()) is True


@pytest.mark.parametrize("lengths", [(1, 1, 1, 1), (2, 2), (4,), (1, 3)])
@pytest.mark.parametrize("start", range(10))
def test_packed_event_desc_within_a_batch_and_its_lists(lengths: tuple[int, ...], start: int) -> None:
    """Conformance row d.packed.event_desc: each off and wrap, batches across the ring's end, off inside a list."""
    size = 5
    passed = {(start + n) % (2 * size) for n in range(4)}
    for event in range(2 * size):
        rig = PackedRig(size, event_idx=True, start=start)
        rig.driver.set_driver_event(event % size | (0 if event >= size else WRAP), DESC)
        for length in lengths:
            rig.offer([(DATA, 1)] * length, [])
        assert rig.complete(*rig.ring.pop_batch()) is (event in passed), event


def test_row_33_interrupt_is_due_for_a_batch_of_the_whole_ring_in_any_lap() -> None:
    """Row 33 of vmm-anchors 3b: whatever the driver waits for within a lap, a full ring contains it."""
    for start in range(6):
        for event in range(3):
            rig = PackedRig(3, event_idx=True, start=start)
            count = next(n for n in range(start, start + 3) if n % 3 == event)
            rig.driver.set_driver_event(count % 3 | (0 if count // 3 % 2 else WRAP), DESC)
            for _ in range(3):
                rig.offer([(DATA, 1)], [])
            assert rig.complete(*rig.ring.pop_batch()) is True


def test_packed_event_desc_counts_from_the_last_publish() -> None:
    rig = PackedRig(8, event_idx=True)
    rig.driver.set_driver_event(0 | WRAP, DESC)
    for expected in (True, False, False):
        rig.offer([(DATA, 1)], [])
        assert rig.complete(rig.pop()) is expected


def test_packed_avail_notify_may_suppress_by_the_flags() -> None:
    """Conformance rows packed.avail_notify.may_suppress and d.packed.event_reserved0."""
    rig = PackedRig()
    seen = [rig.device_event()]
    rig.ring.disable_kicks()
    seen.append(rig.device_event())
    rig.offer([(DATA, 1)], [])
    silent = rig.driver.wants_kick()
    rig.complete(rig.pop())
    rig.ring.enable_kicks()
    seen.append(rig.device_event())
    rig.offer([(DATA, 1)], [])
    assert seen == [(0, ENABLE), (0, DISABLE), (0, ENABLE)]
    assert (silent, rig.driver.wants_kick()) == (False, True)


@pytest.mark.parametrize("start", [0, 2, 3, 5])
def test_kicks_are_asked_for_by_the_next_descriptor_with_event_idx(start: int) -> None:
    """Conformance row d.packed.event_reserved0: no other bit is set."""
    rig = PackedRig(3, event_idx=True, start=start)
    rig.ring.disable_kicks()
    assert rig.device_event()[1] == DISABLE
    assert rig.ring.enable_kicks() is False
    assert rig.device_event() == (start % 3 | (0 if start // 3 % 2 else WRAP), DESC)
    rig.offer([(DATA, 1)], [])
    first = rig.driver.wants_kick()
    rig.offer([(DATA, 1)], [])
    assert (first, rig.driver.wants_kick()) == (True, False)


@pytest.mark.parametrize("event_idx", [False, True])
def test_enable_kicks_tells_of_what_came_before_the_wish_was_seen(event_idx: bool) -> None:
    rig = PackedRig(event_idx=event_idx)
    rig.ring.disable_kicks()
    assert rig.ring.pop_batch() == []
    rig.offer([(DATA, 1)], [])
    assert rig.ring.enable_kicks() is True
    rig.complete(rig.pop())
    assert rig.ring.enable_kicks() is False
