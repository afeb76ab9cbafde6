"""The userspace backend: fairness, what is left in a ring, polling, loops (anchors 7, 53)."""

import os
import time
from collections.abc import Sequence

import pytest

from acrn_dm.ring.position import RingPosition
from acrn_dm.testing import VirtioDriver
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, Holding, device_of, machine_with

pytestmark = pytest.mark.both_formats(fast=True)


def fill(driver: VirtioDriver, index: int, count: int) -> None:
    for _ in range(count):
        driver.queue(index).send([b"ab"], [2])


@pytest.mark.parametrize("features", [None, 0, 1 << 28, 1 << 29])
def test_full_ring_again_and_again(features: int | None) -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(features)
        for _ in range(40):
            fill(driver, 1, 8)
            driver.queue(1).kick()
            machine.settle()
            assert [c.data for c in driver.queue(1).completed()] == [b"ba"] * 8


def test_indirect_chain_works_when_negotiated() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"a", b"bc"], [2, 2], indirect=True).data == b"cba\xa5"


def test_row_14_indirect_chain_without_negotiation_needs_a_reset() -> None:
    """Anchor 14."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(0)
        driver.queue(0).send([b"a"], [2], indirect=True)
        driver.queue(0).kick()
        machine.settle()
        assert driver.status & 64


def test_device_that_takes_one_chain_a_time_still_gets_them_all() -> None:
    class OneByOne(Echo):
        def handle_queue(self, queue: Queue) -> None:
            for chain in queue.pop_batch(1):
                queue.push(chain, 0)

    with machine_with(OneByOne) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        fill(driver, 0, 20)
        driver.queue(0).kick()
        machine.settle()
        assert len(driver.queue(0).completed()) == 20


def test_device_that_leaves_chains_in_the_ring_is_not_called_in_a_circle() -> None:
    class Leaving(Echo):
        count = 0

        def handle_queue(self, queue: Queue) -> None:
            self.count += 1

    with machine_with(Leaving) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        fill(driver, 0, 20)
        driver.queue(0).kick()
        machine.settle()
        assert 0 < Leaving.count < 10 or device_of(machine).count < 10  # type: ignore[attr-defined]


def test_row_07_driver_that_adds_as_fast_as_it_is_served_can_not_keep_the_loop() -> None:
    """Anchor 7: one kick serves a bounded number of chains."""

    class Racing(Echo):
        rounds = 0
        driver: VirtioDriver

        def handle_queue(self, queue: Queue) -> None:
            super().handle_queue(queue)
            queue.flush()
            if queue.index == 0:
                Racing.rounds += 1
                self.driver.queue(0).completed()
                self.driver.queue(0).send([b"x"], [1])  # the guest's other vCPU

    with machine_with(Racing) as machine:
        driver = machine.driver(SLOT)
        Racing.driver = driver
        driver.negotiate(0)
        driver.setup_queue(0)
        driver.setup_queue(1)
        driver.driver_ok()
        loop = machine.io_loop("io")
        for _ in range(10):
            before = Racing.rounds
            loop.step()
            assert Racing.rounds - before <= 2
        fill(driver, 1, 1)
        driver.queue(1).kick(force=True)
        loop.step()
        loop.step()
        assert len(driver.queue(1).completed()) == 1


def test_buffers_exposed_before_driver_ok_are_served_without_a_kick() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.negotiate()
        driver.setup_queue(0)
        fill(driver, 0, 3)
        driver.driver_ok()
        machine.settle()
        assert len(driver.queue(0).completed()) == 3


def test_queues_are_served_on_the_loops_the_device_names() -> None:
    class TwoLoops(Echo):
        def loop_name(self, queue: int) -> str:
            return f"disk-{queue}"

    with machine_with(TwoLoops) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert sorted(machine.io_loops) == ["disk-0", "disk-1"]
        assert [q.loop.name for q in device_of(machine).queues] == ["disk-0", "disk-1"]
        assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_kicks_are_disabled_while_a_queue_is_served() -> None:
    seen: list[int] = []

    class Watching(Echo):
        driver: VirtioDriver

        def handle_queue(self, queue: Queue) -> None:
            super().handle_queue(queue)
            if queue.index in self.driver.queues:
                seen.append(self.driver.queue(queue.index).ring.used_flags())

    with machine_with(Watching) as machine:
        driver = machine.driver(SLOT)
        Watching.driver = driver
        driver.start(0)
        driver.queue(0).transfer([b"ab"], [2])
        assert set(seen) == {1}
        assert driver.queue(0).ring.used_flags() == 0


def test_row_53_polling_serves_without_kicks_and_its_timer_ends_with_the_reset() -> None:
    """Anchor 53: the timer fired after the device was freed."""
    with machine_with(poll_ns=200_000) as machine:
        driver = machine.driver(SLOT)
        driver.start(0)
        fill(driver, 0, 3)
        assert not driver.queue(0).kick()  # NO_NOTIFY is set all the time
        deadline = time.monotonic() + 5
        done = 0
        while done < 3 and time.monotonic() < deadline:
            machine.io_loop("io").step(0.01)
            done += len(driver.queue(0).completed())
        assert done == 3
        queues: Sequence[Queue] = device_of(machine).queues
        driver.reset()
        assert all(q.closed for q in queues)
        machine.io_loop("io").step(0.002)
        assert device_of(machine).calls == ["start", "stop"]


def test_interrupt_suppression_is_obeyed() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(0)
        driver.queue(0).set_quiet(True)
        driver.queue(0).transfer([b"ab"], [2])
        assert driver.queue_interrupts(0) == 0
        driver.queue(0).set_quiet(False)
        driver.queue(0).transfer([b"ab"], [2])
        assert driver.queue_interrupts(0) == 1


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_event_index_gives_one_interrupt_per_batch(batch: int) -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start(1 << 29)
        for round_ in range(1, 5):
            fill(driver, 0, batch)
            driver.queue(0).kick()
            machine.settle()
            assert len(driver.queue(0).completed()) == batch
            assert driver.queue_interrupts(0) == round_


def test_no_descriptor_leaks_over_many_sessions() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.reset()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            driver.start()
            driver.queue(0).transfer([b"ab"], [2])
            driver.reset()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_what_the_device_holds_on_to_is_popped_again_by_who_comes_next() -> None:
    with machine_with(Holding) as machine:
        function = machine.bus.functions[0]
        driver = machine.driver(SLOT)
        driver.start()
        fill(driver, 0, 3)
        driver.queue(0).kick()
        machine.settle()
        assert function.data_plane.backend.stop()[0] == RingPosition()  # type: ignore[attr-defined]
