"""Turns between control threads and a loop that never waits."""

import threading

from acrn_dm.backends.user.turns import Turns
from acrn_dm.base.events.ioloop import IoLoop


def test_work_is_done_at_once_when_the_turn_is_free() -> None:
    loop, done = IoLoop("main"), []
    Turns(loop).on_loop(lambda: done.append(1))
    assert done == [1]
    loop.close()


def test_work_waits_for_the_turn_and_the_loop_does_not() -> None:
    loop, done = IoLoop("main"), []
    turns, held, release = Turns(loop), threading.Event(), threading.Event()

    def control() -> None:
        with turns.hold():
            held.set()
            release.wait(10)

    thread = threading.Thread(target=control)
    thread.start()
    held.wait(10)
    turns.on_loop(lambda: done.append(1))
    turns.on_loop(lambda: done.append(2))
    assert done == []
    release.set()
    thread.join()
    loop.step(1.0)
    assert done == [1, 2]
    loop.close()


def test_turn_is_given_back_when_work_raises() -> None:
    loop, done = IoLoop("main"), []
    turns = Turns(loop)

    def broken() -> None:
        raise ValueError

    loop.call_soon(lambda: turns.on_loop(broken))
    loop.step()
    turns.on_loop(lambda: done.append(1))
    assert done == [1]
    loop.close()


def test_work_behind_work_that_raises_is_done() -> None:
    loop, done = IoLoop("main"), []
    turns = Turns(loop)

    def broken() -> None:
        raise ValueError

    def postpone() -> None:
        turns.on_loop(broken)
        turns.on_loop(lambda: done.append(1))

    with turns.hold():
        thread = threading.Thread(target=postpone)
        thread.start()
        thread.join()
    for _ in range(3):
        loop.step()
    assert done == [1]
    loop.close()


def test_no_work_is_lost_between_many_turns() -> None:
    loop, done = IoLoop("main"), []
    turns = Turns(loop)

    def control() -> None:
        for _ in range(2000):
            with turns.hold():
                pass

    threads = [threading.Thread(target=control) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        turns.on_loop(lambda number=number: done.append(number))  # type: ignore[misc]
    for thread in threads:
        thread.join()
    loop.run_until_idle()
    assert done == list(range(2000))
    loop.close()
