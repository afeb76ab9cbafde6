"""Threads that write eventfds where the kernel can't signal them: one hangs alone, and there is a bound."""

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from acrn_dm.base.events import eventfd_helpers
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.events.eventfd_helpers import Helpers, identity
from tests.base.events.fight_scenes import soon


class Stuck:
    """Writes as if the peer's eventfds filled up between the look and the write, until ``let_go``."""

    def __init__(self) -> None:
        self.hanging: set[int] = set()  # by identity
        self.writes = 0
        self._gate = threading.Event()

    def write(self, fd: int, count: int) -> None:
        if identity(fd) in self.hanging:
            self._gate.wait(30)
        self.writes += 1
        os.eventfd_write(fd, count)

    def let_go(self) -> None:
        self._gate.set()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    it = Stuck()
    yield it
    it.let_go()


@pytest.fixture
def events() -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    yield fds
    for fd in fds:
        os.close(fd)


def test_eventfds_beside_one_that_hangs_are_signalled(stuck: Stuck, events: list[int]) -> None:
    helpers = Helpers(stuck.write)
    stuck.hanging = {identity(events[0])}
    for fd in events:
        helpers.signal(fd)
    for fd in events[1:]:
        soon(lambda fd=fd: drain(fd) == 1, "it was not signalled")  # type: ignore[misc]
    assert drain(events[0]) == 0


def test_one_eventfd_hangs_one_thread_however_often_it_is_signalled(stuck: Stuck, events: list[int]) -> None:
    helpers = Helpers(stuck.write)
    stuck.hanging = {identity(events[0])}
    for _ in range(100):
        helpers.signal(events[0])
    assert len(helpers._tasks) == 1
    assert helpers.lost == 0


def test_signal_during_a_write_that_hangs_is_made_up_for(stuck: Stuck, events: list[int]) -> None:
    """The reader may have seen what the first one wrote before the second came."""
    helpers = Helpers(stuck.write)
    stuck.hanging = {identity(events[0])}
    helpers.signal(events[0])
    helpers.signal(events[0])
    stuck.let_go()
    soon(lambda: not helpers._tasks, "it still hangs")
    assert drain(events[0]) == 2


def test_descriptor_that_is_another_eventfds_by_now_gets_nothing_that_was_meant_for_the_first(
    stuck: Stuck, events: list[int]
) -> None:
    helpers = Helpers(stuck.write)
    stuck.hanging = {identity(events[0])}
    helpers.signal(events[0])
    os.dup2(events[1], events[0])
    helpers.signal(events[0])  # the other one
    soon(lambda: drain(events[1]) == 1, "it was not signalled")
    stuck.let_go()
    soon(lambda: not helpers._tasks, "it still hangs")
    assert drain(events[1]) == 0


def test_past_the_bound_signals_are_lost_counted_and_told(
    stuck: Stuck, events: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(eventfd_helpers, "MOST", 2)
    helpers = Helpers(stuck.write)
    stuck.hanging = {identity(fd) for fd in events}
    with caplog.at_level(logging.ERROR):
        for fd in events:
            helpers.signal(fd)
    assert len(helpers._tasks) == 2
    assert helpers.lost == 2
    assert [record.getMessage() for record in caplog.records] == [
        "2 eventfds are kept full by their other side; 1 signals to others were lost",
        "2 eventfds are kept full by their other side; 2 signals to others were lost",
    ]


def test_threads_are_used_again(events: list[int]) -> None:
    helpers = Helpers()
    before = threading.active_count()
    for _ in range(50):
        helpers.signal(events[0])
        soon(lambda: not helpers._tasks, "it hangs")
    assert drain(events[0]) == 50
    assert threading.active_count() <= before + 2
