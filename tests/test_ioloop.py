"""acrn_dm.ioloop: handlers, timers and work from other threads."""

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from acrn_dm.ioloop import IoLoop


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


def test_ready_eventfd_calls_its_handler_once_per_signal_burst(loop: IoLoop, event: int) -> None:
    calls: list[int] = []
    loop.add(event, lambda: calls.append(1), eventfd=True)
    os.eventfd_write(event, 1)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert calls == [1]


def test_removed_fd_is_not_called_any_more(loop: IoLoop, event: int) -> None:
    calls: list[int] = []
    loop.add(event, lambda: calls.append(1), eventfd=True)
    loop.remove(event)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert calls == []


def test_remove_waits_for_the_running_handler(loop: IoLoop, event: int) -> None:
    entered, leave = threading.Event(), threading.Event()
    order: list[str] = []

    def handler() -> None:
        entered.set()
        leave.wait(10)
        order.append("handler")

    loop.add(event, handler, eventfd=True)
    loop.start()
    os.eventfd_write(event, 1)
    assert entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    loop.remove(event)
    order.append("removed")
    assert order == ["handler", "removed"]


def test_handler_may_remove_itself(loop: IoLoop, event: int) -> None:
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        loop.remove(event)

    loop.add(event, handler)
    os.eventfd_write(event, 1)
    loop.run_until_idle()
    assert calls == [1]


def test_failing_handler_is_logged_and_the_next_one_runs(loop: IoLoop, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    loop.call_soon(lambda: 1 // 0)
    loop.call_soon(lambda: calls.append(1))
    with caplog.at_level(logging.ERROR):
        loop.run_until_idle()
    assert calls == [1]
    assert "ZeroDivisionError" in caplog.text


def test_work_added_by_work_waits_for_the_next_step(loop: IoLoop) -> None:
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        loop.call_soon(again)

    loop.call_soon(again)
    loop.step()
    assert calls == [1]
    with pytest.raises(RuntimeError, match="does not come to rest"):
        loop.run_until_idle(limit=20)


def test_timers_run_in_order_and_a_cancelled_one_does_not(loop: IoLoop) -> None:
    order: list[str] = []
    loop.call_later(0.02, lambda: order.append("late"))
    loop.call_later(0.0, lambda: order.append("early"))
    loop.call_later(0.01, lambda: order.append("cancelled")).cancel()
    while len(order) < 2:
        loop.step(1.0)
    assert order == ["early", "late"]


def test_call_soon_from_another_thread_wakes_the_loop(loop: IoLoop) -> None:
    done = threading.Event()
    loop.start()
    loop.call_soon(done.set)
    assert done.wait(10)


def test_stopped_loop_has_no_thread_and_close_gives_every_fd_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    loop = IoLoop("leak")
    loop.start()
    loop.close()
    loop.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert "leak" not in [t.name for t in threading.enumerate()]
