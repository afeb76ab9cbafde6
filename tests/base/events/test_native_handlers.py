"""acrn_dm.base.events: handlers in C, beside those in Python, on a loop that is stepped and on one with a thread."""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.testing.native._handler import CHandler
from tests.patience import comes_true


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    it = IoLoop("test")
    yield it
    it.close()


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def other() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_stepped_loop_runs_c_handlers_and_counts_them(loop: IoLoop, event: int, other: int) -> None:
    handler = CHandler(loop.poll, event, signals=other)
    os.eventfd_write(event, 1)
    assert loop.step() == 1
    assert (handler.left, os.eventfd_read(other)) == (1, 1)
    assert loop.step() == 0  # watched by edge: the count that nobody read is no news


def test_idle_loop_has_run_what_c_handlers_asked_for(loop: IoLoop, event: int) -> None:
    handler = CHandler(loop.poll, event, again=5)
    os.eventfd_write(event, 1)
    assert loop.run_until_idle() == 6
    assert handler.left == 6


def test_c_handlers_run_without_python(loop: IoLoop, event: int, other: int) -> None:
    """The loop's thread takes the GIL for what Python has to do only."""
    handler = CHandler(loop.poll, event, signals=other)
    loop.start()
    assert comes_true(lambda: loop.poll.waits > 0)
    came_back = loop.poll.returns
    for _ in range(200):
        os.eventfd_write(event, 1)
        assert select.select([other], [], [], 10)[0]
        os.eventfd_read(other)
    assert comes_true(lambda: handler.left == 200)  # it signals before it leaves
    assert loop.poll.returns == came_back


def test_sleep_that_is_interrupted_takes_the_gil_on_the_main_thread_only(loop: IoLoop) -> None:
    """io_uring interrupts whoever sleeps, for each transfer that has completed: no word for Python, which has signals
    on its main thread.
    """
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        loop.start()
        thread = loop._thread.ident  # type: ignore[union-attr]
        assert thread is not None
        assert comes_true(lambda: loop.poll.waits > 0)
        for times in range(5):
            slept = loop.poll.waits
            signal.pthread_kill(thread, signal.SIGUSR1)
            assert comes_true(lambda: loop.poll.waits > slept)  # noqa: B023
            assert comes_true(lambda: len(seen) > times)  # noqa: B023
        assert loop.poll.interruptions == 0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signal_ends_the_sleep_of_a_loop_on_the_main_thread(loop: IoLoop) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: (seen.append(number), loop.call_soon(int)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        loop.step(10)
        assert (seen, loop.poll.interruptions) == ([signal.SIGALRM], 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_c_handler_lets_python_do_what_it_can_not(loop: IoLoop, event: int) -> None:
    calls: list[int] = []
    handler = CHandler(loop.poll, event, asks=True)
    loop.attend(event, lambda: calls.append(handler.left))
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert calls == [1]


def test_c_handler_that_always_has_work_lets_python_in(loop: IoLoop, event: int, other: int) -> None:
    handler = CHandler(loop.poll, event, again=-1)
    done, timed, soon = threading.Event(), threading.Event(), threading.Event()
    loop.add(other, done.set, eventfd=True)
    loop.start()
    os.eventfd_write(event, 1)
    assert comes_true(lambda: handler.left > 10)
    os.eventfd_write(other, 1)
    assert done.wait(10)
    loop.call_later(0.001, timed.set)
    loop.call_soon(soon.set)
    assert timed.wait(10)
    assert soon.wait(10)


def test_timer_comes_in_time_beside_a_c_handler_that_takes_long(loop: IoLoop, event: int) -> None:
    CHandler(loop.poll, event, again=-1, busy_ns=20_000_000)
    timed = threading.Event()
    loop.call_later(0.01, timed.set)
    loop.start()
    os.eventfd_write(event, 1)
    assert timed.wait(10)  # not after the thousand rounds in which Python has its turn anyway


def test_python_handler_that_always_has_work_lets_c_in(loop: IoLoop, event: int, other: int) -> None:
    handler = CHandler(loop.poll, event)

    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    os.eventfd_write(event, 1)
    for _ in range(3):
        loop.step()
    assert handler.left == 1


def test_no_c_handler_runs_while_the_loop_is_held(loop: IoLoop, event: int) -> None:
    handler = CHandler(loop.poll, event, again=-1)
    loop.start()
    os.eventfd_write(event, 1)
    assert comes_true(lambda: handler.left > 10)
    for _ in range(50):
        with loop.held():
            before = handler.entered
            assert handler.left == before
            time.sleep(0)
            assert handler.entered == before


def test_holding_a_busy_loop_takes_one_handler_and_not_for_ever(loop: IoLoop, event: int) -> None:
    handler = CHandler(loop.poll, event, again=-1, busy_ns=1_000_000)
    loop.start()
    os.eventfd_write(event, 1)
    assert comes_true(lambda: handler.left > 2)
    before = handler.entered
    for _ in range(20):
        loop.barrier()
    assert handler.entered - before <= 60


def test_remove_waits_for_the_c_handler_that_runs(loop: IoLoop, event: int) -> None:
    handler = CHandler(loop.poll, event, busy_ns=30_000_000)
    loop.start()
    os.eventfd_write(event, 1)
    assert comes_true(lambda: handler.entered == 1)
    loop.remove(event)
    assert handler.left == 1


def test_removed_c_handler_is_not_called_any_more_not_even_for_an_event_that_came_first(
    loop: IoLoop, event: int, other: int
) -> None:
    handler = CHandler(loop.poll, event, again=-1)
    os.eventfd_write(event, 1)
    loop.step()
    loop.remove(event)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert handler.left == 1
    again = CHandler(loop.poll, event)  # the number can be had anew, and the old handler's wish is not the new one's
    loop.run_until_idle()
    assert (handler.left, again.left) == (1, 1)


def test_c_handler_is_kept_alive_by_its_loop_until_it_is_removed(loop: IoLoop, event: int, other: int) -> None:
    CHandler(loop.poll, event, signals=other)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert os.eventfd_read(other) == 1


def test_descriptor_that_is_watched_already_keeps_its_c_handler(loop: IoLoop, event: int) -> None:
    handler = CHandler(loop.poll, event)
    with pytest.raises(FileExistsError):
        CHandler(loop.poll, event)
    with pytest.raises(FileExistsError):
        loop.add(event, lambda: None)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert handler.left == 1


def test_handlers_added_and_removed_under_load_are_called_for_their_own_events_only(
    loop: IoLoop, event: int, other: int
) -> None:
    busy = CHandler(loop.poll, event, again=-1)
    loop.start()
    os.eventfd_write(event, 1)
    for _ in range(100):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        handler = CHandler(loop.poll, fd, signals=other)
        os.eventfd_write(fd, 1)
        assert select.select([other], [], [], 10)[0]
        assert os.eventfd_read(other) == 1
        loop.remove(fd)
        os.close(fd)
        assert handler.left == 1
    assert busy.left > 100
