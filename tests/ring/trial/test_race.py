"""acrn_dm.ring.trial._race: driver and device on two threads lose no wake-up, and a device that would is found out."""

import pytest

from tools.rings.race import WAYS, race

NAMES = [f"{'packed' if packed else 'split'}{' event_idx' if event_idx else ''}" for packed, event_idx in WAYS]
LINGER = 1500  # longer than it takes to wake a thread, so that both sides are awake
ROUNDS = 300  # about every third loses one; on a machine where both threads seldom run at once, fewer


@pytest.mark.stress
@pytest.mark.parametrize(("packed", "event_idx"), WAYS, ids=NAMES)
def test_no_wake_up_is_lost_between_two_threads(packed: bool, event_idx: bool) -> None:
    for chains, linger in ((200_000, 0), (30_000, LINGER)):
        assert race(chains, packed=packed, event_idx=event_idx, linger=linger).done == chains


@pytest.mark.stress
@pytest.mark.parametrize(("packed", "event_idx"), WAYS, ids=NAMES)
def test_device_that_does_not_look_once_more_before_it_sleeps_is_found_out(packed: bool, event_idx: bool) -> None:
    def until_lost() -> None:
        for turn in range(ROUNDS):
            linger = LINGER * (1 + turn % 3)
            race(50_000, packed=packed, event_idx=event_idx, linger=linger, limit_ms=300, faulty=True)

    with pytest.raises(AssertionError, match="lost wake-up"):
        until_lost()
