"""base.events.io_loops: loops by name."""

import threading
from collections.abc import Iterator

import pytest

from acrn_dm.base.events.io_loops import IoLoops


@pytest.fixture
def loops() -> Iterator[IoLoops]:
    made = IoLoops()
    yield made
    made.close()


def test_loop_of_a_name_is_made_once_also_by_many_threads(loops: IoLoops) -> None:
    start, found = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        found.append(loops.get("io"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(loop) for loop in found}) == 1
    assert loops.get("other") is not found[0]


def test_loops_run_on_threads_of_their_own(loops: IoLoops) -> None:
    told = threading.Event()
    loops.get("io").call_soon(told.set)
    assert told.wait(10)


def test_without_threads_tests_step_them() -> None:
    loops, told = IoLoops(threads=False), []
    loops.get("io").call_soon(lambda: told.append(1))
    assert told == []
    loops.get("io").run_until_idle()
    assert told == [1]
    loops.close()


def test_close_gives_all_back_and_may_be_called_again() -> None:
    before = threading.active_count()
    loops = IoLoops()
    loops.get("a")
    loops.get("b")
    assert threading.active_count() == before + 2
    loops.close()
    loops.close()
    assert (threading.active_count(), loops.by_name) == (before, {})
