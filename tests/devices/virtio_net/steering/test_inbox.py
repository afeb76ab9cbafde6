"""acrn_dm.devices.virtio_net.steering.inbox: frames that wait for their queue's turn, a bounded number of them."""

import threading

from acrn_dm.devices.virtio_net.steering.inbox import LIMIT, Inbox


def test_queue_is_woken_once_for_what_comes_before_its_turn() -> None:
    woken: list[int] = []
    inbox = Inbox(lambda: woken.append(1))
    for n in range(3):
        inbox.put(b"%d" % n)
    assert len(woken) == 1
    assert inbox.open() == 0
    inbox.put(b"3")
    assert len(woken) == 2
    assert [inbox.take() for _ in range(5)] == [b"0", b"1", b"2", b"3", None]


def test_what_is_left_behind_a_turn_has_another() -> None:
    woken: list[int] = []
    inbox = Inbox(lambda: woken.append(1))
    inbox.put(b"a")
    inbox.open()
    inbox.shut()
    assert len(woken) == 2
    inbox.shut()
    assert len(woken) == 2


def test_full_inbox_loses_what_comes_and_says_so_once() -> None:
    inbox = Inbox(lambda: None)
    for n in range(LIMIT + 5):
        inbox.put(b"%d" % n)
    assert (inbox.open(), inbox.open()) == (5, 0)
    assert inbox.take() == b"0"
    inbox.clear()
    assert (inbox.take(), inbox.open()) == (None, LIMIT - 1)


def test_no_frame_stays_behind_when_others_put_while_the_queue_takes() -> None:
    turn, got = threading.Semaphore(0), 0
    inbox = Inbox(turn.release)

    def put() -> None:
        for _ in range(400):
            inbox.put(b"x")

    others = [threading.Thread(target=put) for _ in range(2)]
    for other in others:
        other.start()
    while got < 800:
        assert turn.acquire(timeout=10), f"asleep for ever with {got} frames"
        inbox.open()
        while inbox.take() is not None:
            got += 1
    for other in others:
        other.join()
