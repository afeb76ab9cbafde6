"""A relay beside those who look by themselves: a back-end that polls is not kicked, a loop that polls is not called."""

import os
import threading
import time

import pytest

from acrn_dm.backends.wire.message import Request
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import PACKED
from tests.backends.user.peers.peer import Peer
from tests.backends.user.peers.shadow import Shadow
from tests.backends.user.ways.ways_rig import request
from tests.patience import comes_true


@pytest.fixture
def driver(peer: Peer, machine: SimMachine) -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={peer.path},relay=on", slot=3)
    driver = machine.driver(3)
    driver.start(driver.registers.offered() & ~PACKED)
    return driver


def kicks(peer: Peer) -> int:
    """How often the back-end was kicked since the last time."""
    fd = [r for r in peer.seen if r.code == Request.SET_VRING_KICK and r.payload[0] == 0][-1].fds[0]
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_backend_that_looks_by_itself_is_not_kicked(peer: Peer, machine: SimMachine, driver: VirtioDriver) -> None:
    shadow = Shadow.of(peer)
    kicks(peer)
    for wanted in (False, True):
        shadow.want_kicks(wanted)
        before = shadow.available()
        request(driver)
        machine.settle()
        assert (shadow.available(), kicks(peer)) == (before + 1, int(wanted))
    for number, head in enumerate(shadow.heads()):
        shadow.answer(number, head, 1)


def test_answers_are_found_without_calls_while_the_loop_polls(
    peer: Peer, machine: SimMachine, driver: VirtioDriver
) -> None:
    shadow, queue, loop = Shadow.of(peer), driver.queue(0), machine.io_loop("io")
    loop.poll.poll_limit = 50_000_000
    loop.start()
    number = 0

    def found() -> bool:
        nonlocal number
        (head,) = request(driver)
        assert comes_true(lambda: shadow.available() == number + 1)
        looks = shadow.wants_no_calls
        shadow.answer(number, head, 1, tell=not looks)
        number += 1
        assert comes_true(lambda: len(queue.completed()) == 1)
        return looks

    assert comes_true(found)
    assert comes_true(lambda: not shadow.wants_no_calls)  # before it sleeps
    loop.stop()


def test_end_of_a_driver_wants_to_be_told_again(peer: Peer, machine: SimMachine, driver: VirtioDriver) -> None:
    (head,) = request(driver)
    machine.settle()
    shadow = Shadow.of(peer)
    shadow.memory[shadow.avail] = 1  # as while the loop polls

    resetting = threading.Thread(target=driver.reset)
    resetting.start()
    assert comes_true(lambda: not shadow.wants_no_calls)
    shadow.answer(0, head, 1)
    resetting.join(10)
    assert not resetting.is_alive()
    assert machine.failures == []


def test_loop_sleeps_while_an_answer_does_not_come(peer: Peer, machine: SimMachine, driver: VirtioDriver) -> None:
    """What is owed keeps it from sleeping for as long as it polls, and no longer."""
    shadow, queue, loop = Shadow.of(peer), driver.queue(0), machine.io_loop("io")
    loop.poll.poll_limit = 50_000_000
    loop.start()
    number, deadline = 0, time.monotonic() + 10
    while True:
        (head,) = request(driver)
        assert comes_true(lambda n=number: shadow.available() == n + 1)
        if shadow.wants_no_calls:
            break
        assert time.monotonic() < deadline
        shadow.answer(number, head, 1)
        assert comes_true(lambda: len(queue.completed()) == 1)
        number += 1
    waits, looks = loop.poll.waits, loop.poll.looks
    assert comes_true(lambda: loop.poll.waits > waits)
    assert loop.poll.looks - looks <= 3
    assert comes_true(lambda: not shadow.wants_no_calls)
    loop.stop()
    shadow.answer(number, head, 1)
