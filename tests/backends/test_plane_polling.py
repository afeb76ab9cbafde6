"""Planes on a loop that looks before it sleeps (``poll_us``): bounded, adaptive, and no kick is lost at its end."""

import time
from collections.abc import Callable, Iterator

import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.pci.eventfds import CallEvent
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.queue import Queue
from tests.patience import comes_true
from tests.virtio.parts import SLOT, Echo

LIMIT_NS = 2_000_000


class Native(Echo):
    def plane(self, features: int, queue: Queue) -> EchoPlane | None:
        return EchoPlane() if queue.index == 0 else None


@pytest.fixture
def driver() -> Iterator[VirtioDriver]:
    """Of a device whose loop has a thread."""
    with SimMachine() as machine:
        machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        machine.io_loop("io").poll.poll_limit = LIMIT_NS
        driver.start(1 << 29)
        machine.io_loop("io").start()
        yield driver
        machine.io_loop("io").stop()


def test_loop_that_sleeps_is_woken_by_who_completes_on_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """``wake``, for chains that were left, and ``ask``, for a call that Python signals."""
    monkeypatch.setattr(CallEvent, "private", False)
    plane = EchoPlane()

    class Keeping(Echo):
        def plane(self, features: int, queue: Queue) -> EchoPlane | None:
            return plane if queue.index == 0 else None

    with SimMachine() as machine:
        machine.add(Keeping, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start(0)
        machine.settle()
        plane.keeps, plane.most = True, 2
        loop = machine.io_loop("io")
        loop.start()
        for _ in range(3):
            driver.queue(0).send([b"ab"], [2])
        driver.queue(0).kick()
        assert comes_true(lambda: plane.n_kept == 2)
        assert comes_true(_asleep(loop))
        plane.keeps, plane.most = False, -1
        with loop.held():
            plane.release()
        assert comes_true(lambda: machine.queue_counts(SLOT, 0).returned == 3)
        assert comes_true(lambda: driver.queue_interrupts(0) >= 1)
        loop.stop()


def _asleep(loop: IoLoop) -> "Callable[[], bool]":
    seen = [-1]

    def looked() -> bool:
        same, seen[0] = loop.poll.waits == seen[0], loop.poll.waits
        return same

    return looked


def test_loop_does_not_poll_unless_told() -> None:
    with SimMachine() as machine:
        machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start()
        loop = machine.io_loop("io")
        loop.start()
        for _ in range(20):
            echo(driver)
        loop.stop()
        assert (loop.poll.poll_limit, loop.poll.found) == (0, 0)


def echo(driver: VirtioDriver) -> None:
    """One chain there and back, with a kick if the device wants one."""
    queue = driver.queue(0)
    queue.send([b"ab"], [2])
    queue.kick()
    deadline = time.monotonic() + 10
    while not queue.completed():
        assert time.monotonic() < deadline, "a chain came back"


def test_chains_are_found_without_kicks_while_the_loop_polls(driver: VirtioDriver) -> None:
    loop = driver.machine.io_loop("io")  # type: ignore[attr-defined]
    loop.poll.poll_limit = 50_000_000  # however busy the machine is, the next chain comes within that

    def without_a_kick() -> bool:
        for _ in range(10):
            echo(driver)
        counts = driver.machine.queue_counts(SLOT, 0)  # type: ignore[attr-defined]
        return bool(loop.poll.found > 0 and counts.kicks < counts.returned)

    assert comes_true(without_a_kick)


def test_polling_goes_on_where_it_finds_work(driver: VirtioDriver) -> None:
    poll = driver.machine.io_loop("io").poll  # type: ignore[attr-defined]
    poll.poll_limit = poll.busy_limit = 50_000_000

    def finds_more_than_one_at_a_time() -> bool:
        found, looks = poll.found, poll.looks
        for _ in range(10):
            echo(driver)
        return bool(poll.found - found > poll.looks - looks + 1)

    assert comes_true(finds_more_than_one_at_a_time)


def test_files_have_their_turn_while_polling_finds_work(driver: VirtioDriver) -> None:
    """After ``busy_limit``, here after each find."""
    poll = driver.machine.io_loop("io").poll  # type: ignore[attr-defined]
    poll.poll_limit, poll.busy_limit = 50_000_000, 0
    for _ in range(40):
        found, looks = poll.found, poll.looks
        for _ in range(5):
            echo(driver)
        assert poll.found - found <= poll.looks - looks + 1  # a look may be under way
    assert poll.found > 0


def test_polling_ends_and_no_chain_is_lost_at_its_end(driver: VirtioDriver) -> None:
    loop = driver.machine.io_loop("io")  # type: ignore[attr-defined]
    for pause in (0.0, 0.001, 0.002, 0.003, 0.01):
        for _ in range(3):
            echo(driver)
            time.sleep(pause)  # before, about, and after the moment at which the loop gives up looking
    waits = loop.poll.waits
    time.sleep(0.05)
    assert loop.poll.waits - waits < 3  # it sleeps


def test_loop_that_polls_lets_others_hold_it_and_stops(driver: VirtioDriver) -> None:
    loop = driver.machine.io_loop("io")  # type: ignore[attr-defined]
    loop.poll.poll_limit = 20_000_000
    for _ in range(20):
        echo(driver)
    for _ in range(5):
        before = time.monotonic()
        with loop.held():
            assert time.monotonic() - before < 5.0
    driver.reset()
    assert comes_true(lambda: driver.status == 0)
