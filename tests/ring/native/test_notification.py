"""SplitRing: when the driver wants an interrupt, and when it is asked for a kick."""

import pytest

from acrn_dm.ring.driver import need_event
from tests.ring.fastring_rig import DATA, Rig


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
