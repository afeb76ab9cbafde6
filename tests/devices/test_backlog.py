"""What is kept for a slow reader, and for how long a guest waits for one. Time passes when the test says so."""

from collections.abc import Sequence

import pytest

from acrn_dm.devices.backlog import KEPT, PATIENCE_S, RATE, Backlog
from tests.devices.stopped_clock import StoppedClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    return StoppedClock(monkeypatch)


class Reader:
    """Takes *room* bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = bytearray()

    def send(self, views: Sequence[memoryview]) -> int:
        data = b"".join(views)[: self.room]
        self.room -= len(data)
        self.got += data
        return len(data)


def test_what_is_kept_is_given_in_order_as_far_as_the_reader_takes_it(clock: StoppedClock) -> None:
    backlog, reader = Backlog(limit=10), Reader(4)
    assert backlog.append(b"hello") == 0
    assert backlog.append(b"world") == 0
    backlog.write(reader.send)
    assert (reader.got, len(backlog), backlog.room) == (b"hell", 6, 4)
    reader.room = 100
    backlog.write(reader.send)
    assert (reader.got, len(backlog)) == (b"helloworld", 0)


def test_large_output_is_given_whole(clock: StoppedClock) -> None:
    backlog, reader = Backlog(), Reader(KEPT)
    data = bytes(i % 251 for i in range(KEPT))
    backlog.append(data)
    backlog.write(reader.send)
    assert reader.got == data


def test_oldest_bytes_are_dropped_and_counted(clock: StoppedClock) -> None:
    backlog, reader = Backlog(limit=10), Reader(100)
    backlog.append(b"0123456789")
    assert backlog.append(b"abc") == 3
    assert len(backlog) == 10
    backlog.write(reader.send)
    assert reader.got == b"3456789abc"


def test_more_than_fits_at_once_leaves_its_end(clock: StoppedClock) -> None:
    backlog, reader = Backlog(limit=4), Reader(100)
    backlog.append(b"x")
    assert backlog.append(b"0123456789") == 7
    backlog.write(reader.send)
    assert reader.got == b"6789"


def test_guest_waits_no_longer_than_the_patience_for_a_reader_that_stands_still(clock: StoppedClock) -> None:
    backlog = Backlog(limit=4)
    assert backlog.patience() == PATIENCE_S
    clock.advance(0.04)
    assert backlog.patience() == pytest.approx(PATIENCE_S - 0.04)
    clock.advance(PATIENCE_S)
    assert backlog.patience() == 0
    clock.advance(3600)
    assert backlog.patience() == 0


def test_time_in_which_nobody_waits_costs_no_patience(clock: StoppedClock) -> None:
    backlog = Backlog(limit=4)
    backlog.patience()
    clock.advance(0.04)
    backlog.append(b"x")
    clock.advance(3600)
    assert backlog.patience() == pytest.approx(PATIENCE_S - 0.04)


def test_patience_that_is_spent_does_not_come_back_with_time(clock: StoppedClock) -> None:
    backlog = Backlog(limit=4)
    backlog.patience()
    clock.advance(1)
    backlog.append(b"01234")
    clock.advance(3600)
    assert backlog.patience() == 0


def test_reader_as_fast_as_a_line_is_waited_for_without_an_end(clock: StoppedClock) -> None:
    backlog = Backlog()
    for _ in range(1000):
        assert backlog.patience() > 0
        clock.advance(0.05)
        backlog.took(RATE // 20)


def test_reader_half_as_fast_holds_the_guest_half_of_the_time(clock: StoppedClock) -> None:
    """After its patience; that is what keeps a peer that takes a byte now and then from stopping a guest."""
    backlog, waited, begin = Backlog(limit=1000), 0.0, clock.now
    for _ in range(100):
        while (patience := backlog.patience()) > 0:
            clock.advance(min(patience, 0.05))
            waited += min(patience, 0.05)
            if patience >= 0.05:
                backlog.took(RATE // 40)
        backlog.append(bytes(1000))
        clock.advance(0.05)
        backlog.took(RATE // 40)
    assert waited <= PATIENCE_S + (clock.now - begin) / 2


def test_reader_that_wakes_up_is_waited_for_again_but_no_longer_than_before(clock: StoppedClock) -> None:
    backlog = Backlog()
    backlog.patience()
    clock.advance(1)
    assert backlog.patience() == 0
    backlog.took(10 * RATE)
    assert backlog.patience() == PATIENCE_S


def test_backlog_of_a_reader_that_has_gone_is_thrown_away_and_the_next_one_is_waited_for(clock: StoppedClock) -> None:
    backlog = Backlog(limit=10)
    backlog.append(b"01234")
    backlog.patience()
    clock.advance(1)
    assert backlog.clear() == 5
    assert (len(backlog), backlog.patience()) == (0, PATIENCE_S)
