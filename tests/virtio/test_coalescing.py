"""acrn_dm.virtio.queue and native._coalescer: interrupts that wait for more chains, or for their time.

The same whether C or Python serves the queue, in both ring formats, and for drivers that ask by flags or by event
index.
"""

import time
from collections.abc import Iterator

import attrs
import pytest

from acrn_dm.testing import SimMachine, VirtioDriver, VirtualClock
from acrn_dm.testing.driver import DriverQueue
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.native.counts import QueueCounts
from acrn_dm.virtio.queue import Queue
from tests.patience import comes_true
from tests.virtio.parts import SLOT, Echo
from tests.virtio.pause import pause, resume

EVENT_IDX, PACKED = 1 << 29, 1 << 34
MS = 1e-3


class Native(Echo):
    def plane(self, features: int, queue: Queue) -> EchoPlane | None:
        return EchoPlane() if queue.index == 0 else None


@attrs.define(eq=False)
class Rig:
    """A device whose interrupts wait for 4 chains or a millisecond, and its driver, which sleeps."""

    machine: SimMachine
    driver: VirtioDriver

    @property
    def queue(self) -> DriverQueue:
        return self.driver.queue(0)

    @property
    def served(self) -> Queue:
        return self.machine.device(SLOT, Native).queues[0]

    @property
    def interrupts(self) -> int:
        return self.driver.queue_interrupts(0)

    @property
    def counts(self) -> QueueCounts:
        return self.machine.queue_counts(SLOT, 0)

    def send(self, count: int = 1) -> None:
        """One kick for each, so that each is returned by itself."""
        for _ in range(count):
            self.queue.send([b"ab"], [2])
            self.queue.kick()
            self.machine.settle()

    def wait(self, seconds: float) -> None:
        self.machine.advance(seconds)


@pytest.fixture(params=["c", "python"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "c")


@pytest.fixture(params=[0, EVENT_IDX, PACKED, PACKED | EVENT_IDX], ids=["flags", "event", "p-flags", "p-event"])
def rig(native: bool, request: pytest.FixtureRequest) -> Iterator[Rig]:
    with SimMachine(native=native, clock=VirtualClock()) as machine:
        machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start(request.param)
        rig = Rig(machine, driver)
        rig.served.coalesce(4, 1000)
        yield rig


def test_interrupt_waits_for_so_many_chains_which_are_shown_at_once(rig: Rig) -> None:
    rig.send(3)
    assert (rig.interrupts, rig.queue.ring.returned()) == (0, 3)
    rig.send()
    assert rig.interrupts == 1
    rig.queue.completed()
    rig.wait(5 * MS)
    assert rig.interrupts == 1  # nothing of it is left over


def test_interrupt_comes_when_its_time_is_up_and_the_next_has_a_time_of_its_own(rig: Rig) -> None:
    rig.send()
    rig.wait(0.5 * MS)
    rig.send()
    rig.wait(0.4 * MS)
    assert rig.interrupts == 0
    rig.wait(0.2 * MS)
    assert rig.interrupts == 1
    rig.queue.completed()
    rig.send()
    rig.wait(0.9 * MS)
    assert rig.interrupts == 1
    rig.wait(0.2 * MS)
    assert rig.interrupts == 2


def test_driver_that_wants_none_any_more_when_the_time_is_up_gets_none(rig: Rig) -> None:
    rig.send(2)
    rig.queue.completed()
    rig.queue.set_quiet(True)
    rig.wait(2 * MS)
    assert rig.interrupts == 0
    rig.queue.set_quiet(False)
    rig.send(4)
    assert rig.interrupts == 1


def test_driver_that_looks_by_itself_starts_no_timer(rig: Rig) -> None:
    rig.queue.set_quiet(True)
    rig.send(3)
    assert not rig.served.coalescer.holding
    rig.queue.completed()
    rig.queue.set_quiet(False)
    rig.send(3)
    assert rig.interrupts == 0  # those of before are not counted
    rig.send()
    assert rig.interrupts == 1


@pytest.mark.parametrize("limits", [(2, 1000), (4, 100), (0, 1000), (4, 0)])
def test_smaller_numbers_hold_for_what_waits_already(rig: Rig, limits: tuple[int, int]) -> None:
    rig.send(2)
    rig.wait(0.5 * MS)
    assert rig.interrupts == 0
    rig.served.coalesce(*limits)
    rig.machine.settle()
    rig.wait(0)
    assert rig.interrupts == 1


def test_larger_numbers_hold_for_what_waits_already(rig: Rig) -> None:
    rig.send(2)
    rig.served.coalesce(6, 3000)
    rig.send(2)
    rig.wait(2.5 * MS)
    assert rig.interrupts == 0
    rig.wait(0.6 * MS)
    assert rig.interrupts == 1


def test_long_time_overtakes_the_ring_and_the_driver_is_told_all_the_same(rig: Rig) -> None:
    """More chains than the ring has while one interrupt waits: the driver takes them without asking again."""
    rig.served.coalesce(1000, 1000)
    for _ in range(5):
        rig.send(30)
        rig.queue.completed()
    rig.send()
    assert rig.interrupts == 0
    rig.wait(2 * MS)
    assert rig.interrupts == 1


def test_pause_sends_what_waits_and_a_reset_does_not(rig: Rig) -> None:
    function = rig.machine.bus.functions[0]
    rig.send()
    pause(function)
    assert rig.interrupts == 1
    resume(function)
    rig.served.coalesce(4, 1000)
    rig.queue.completed()
    rig.send()
    before = rig.interrupts
    rig.driver.reset()
    rig.machine.settle()
    rig.wait(2 * MS)
    assert rig.interrupts == before


def test_counts_say_what_was_held_back(rig: Rig) -> None:
    rig.send(4)
    rig.queue.completed()
    rig.send(1)
    rig.queue.set_quiet(True)
    rig.wait(2 * MS)
    counts = rig.counts
    assert (counts.delayed, counts.interrupts, sum(counts.latency_ns)) == (5, 1, 5)


def test_broken_ring_ends_the_wait(rig: Rig) -> None:
    rig.send()
    layout = rig.queue.ring.layout
    if rig.driver.features & PACKED:
        rig.queue.ring.poke([(1 << 40, 1, 0, 0)])
    else:
        rig.queue.ring.memory.write(layout.avail + 2, b"\xff\x7f")
    rig.queue.kick(force=True)
    rig.machine.settle()
    rig.wait(2 * MS)
    assert rig.counts.driver_errors == 1


@pytest.fixture(params=[0, 2_000_000], ids=["asleep", "polling"])
def threaded(native: bool, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """On the host's clock, with a loop that has a thread."""
    with SimMachine(native=native) as machine:
        machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start(EVENT_IDX)
        machine.settle()
        loop = machine.io_loop("io")
        loop.poll.poll_limit = request.param
        loop.start()
        yield Rig(machine, driver)
        loop.stop()


def test_thread_is_not_early_and_not_forgetful(threaded: Rig) -> None:
    threaded.served.coalesce(64, 3000)
    for count in (1, 2, 3):
        began = time.monotonic()
        threaded.queue.send([b"ab"], [2])
        threaded.queue.kick()
        assert comes_true(lambda count=count: threaded.interrupts == count)
        assert time.monotonic() - began >= 3 * MS
        threaded.queue.completed()


def test_interrupt_that_waits_long_is_held_to_a_shorter_time(threaded: Rig) -> None:
    threaded.served.coalesce(64, 60_000_000)
    threaded.queue.send([b"ab"], [2])
    threaded.queue.kick()
    assert comes_true(lambda: threaded.served.coalescer.holding)
    threaded.served.coalesce(64, 5000)
    assert comes_true(lambda: threaded.interrupts == 1)


def test_no_interrupt_is_lost_to_a_driver_that_sleeps_between_them(threaded: Rig) -> None:
    threaded.served.coalesce(3, 50)
    seen = 0

    def interrupted() -> bool:
        return threaded.interrupts > seen

    for n in range(50):
        for _ in range(1 + n % 5):
            threaded.queue.send([b"ab"], [2])
        threaded.queue.kick()
        left = 1 + n % 5
        while left:
            if not threaded.queue.ring.enable_interrupts():
                assert comes_true(interrupted), f"asleep for ever in round {n}"
            seen = threaded.interrupts
            left -= len(threaded.queue.completed())
