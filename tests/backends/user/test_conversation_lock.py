"""The conversation lock between control threads and a loop that never waits."""

import threading

from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.base.events.ioloop import IoLoop


def test_work_is_done_at_once_when_the_turn_is_free() -> None:
    loop, done = IoLoop("main"), []
    ConversationLock(loop).run_on_loop(lambda: done.append(1))
    assert done == [1]
    loop.close()


def test_work_waits_for_the_turn_and_the_loop_does_not() -> None:
    loop, done = IoLoop("main"), []
    lock, held, release = ConversationLock(loop), threading.Event(), threading.Event()

    def control() -> None:
        with lock.hold():
            held.set()
            release.wait(10)

    thread = threading.Thread(target=control)
    thread.start()
    held.wait(10)
    lock.run_on_loop(lambda: done.append(1))
    lock.run_on_loop(lambda: done.append(2))
    assert done == []
    release.set()
    thread.join()
    loop.step(1.0)
    assert done == [1, 2]
    loop.close()


def test_turn_is_given_back_when_work_raises() -> None:
    loop, done = IoLoop("main"), []
    lock = ConversationLock(loop)

    def broken() -> None:
        raise ValueError

    loop.call_soon(lambda: lock.run_on_loop(broken))
    loop.step()
    lock.run_on_loop(lambda: done.append(1))
    assert done == [1]
    loop.close()


def test_work_behind_work_that_raises_is_done() -> None:
    loop, done = IoLoop("main"), []
    lock = ConversationLock(loop)

    def broken() -> None:
        raise ValueError

    def postpone() -> None:
        lock.run_on_loop(broken)
        lock.run_on_loop(lambda: done.append(1))

    with lock.hold():
        thread = threading.Thread(target=postpone)
        thread.start()
        thread.join()
    for _ in range(3):
        loop.step()
    assert done == [1]
    loop.close()


def test_no_work_is_lost_between_many_holders() -> None:
    loop, done = IoLoop("main"), []
    lock = ConversationLock(loop)

    def control() -> None:
        for _ in range(2000):
            with lock.hold():
                pass

    threads = [threading.Thread(target=control) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        lock.run_on_loop(lambda number=number: done.append(number))  # type: ignore[misc]
    for thread in threads:
        thread.join()
    loop.run_until_idle()
    assert done == list(range(2000))
    loop.close()
