"""acrn_dm.virtio.native.counts: what is counted of a queue, the same whether C or Python serves it."""

import attrs
import pytest

from acrn_dm.testing import SimMachine
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.native.counts import QueueCounts
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo

WAYS = pytest.mark.parametrize("native", [True, False], ids=["c", "python"])


class Native(Echo):
    def plane(self, features: int, queue: Queue) -> EchoPlane:
        return EchoPlane()


def counts_after(native: bool, *batches: int, quiet: bool = False) -> QueueCounts:
    """Of queue 0, which gets so many chains at a time, of 3 readable and 5 writable bytes."""
    with SimMachine(native=native) as machine:
        function = machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start(0)
        machine.settle()
        driver.queue(0).set_quiet(quiet)
        before = function.queue_counts(0)
        for n in batches:
            for _ in range(n):
                driver.queue(0).send([b"abc"], [5])
            driver.queue(0).kick()
            machine.settle()
            driver.queue(0).completed()
        after = function.queue_counts(0)
        return attrs.evolve(after, kicks=after.kicks - before.kicks)  # a start looks at the ring by a kick of its own


@WAYS
def test_chains_bytes_kicks_and_batches(native: bool) -> None:
    counts = counts_after(native, 1, 6, 1)
    assert (counts.kicks, counts.chains, counts.returned) == (3, 8, 8)
    assert (counts.bytes_out, counts.bytes_in) == (24, 24)
    assert counts.batches[:4] == (2, 0, 1, 0)
    assert sum(counts.latency_ns) == 8
    assert (counts.driver_errors, counts.device_errors, counts.late) == (0, 0, 0)


@WAYS
def test_interrupts_sent_and_suppressed(native: bool) -> None:
    counts = counts_after(native, 2, 2)
    assert (counts.interrupts, counts.suppressed) == (2, 0)
    counts = counts_after(native, 2, 2, quiet=True)
    assert (counts.interrupts, counts.suppressed) == (0, 2)


@WAYS
def test_driver_that_breaks_its_ring_is_counted(native: bool) -> None:
    with SimMachine(native=native) as machine:
        function = machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start(0)
        driver.queue(0).send([b"a"], [2], indirect=True)
        driver.queue(0).kick()
        machine.settle()
        assert (function.queue_counts(0).driver_errors, function.queue_counts(0).device_errors) == (1, 0)


@WAYS
def test_counts_outlast_a_reset(native: bool) -> None:
    with SimMachine(native=native) as machine:
        function = machine.add(Native, slot=SLOT)
        driver = machine.driver(SLOT)
        for _ in range(2):
            driver.start()
            driver.queue(0).transfer([b"x"], [1])
            driver.reset()
        assert function.queue_counts(0).returned == 2


def test_queue_that_nobody_has_used_counts_nothing() -> None:
    with SimMachine() as machine:
        function = machine.add(Native, slot=SLOT)
        machine.start()
        assert function.queue_counts(1) == machine.queue_counts(SLOT, 1)
        assert machine.queue_counts(SLOT, 1).chains == 0
        with pytest.raises(LookupError, match="slot 9"):
            machine.queue_counts(9, 0)


def test_latency_lasts_from_taken_to_shown_as_used() -> None:
    with SimMachine() as machine:
        plane = EchoPlane()
        plane.keeps = True

        class Keeping(Echo):
            def plane(self, features: int, queue: Queue) -> EchoPlane | None:
                return plane if queue.index == 0 else None

        function = machine.add(Keeping, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start()
        driver.queue(0).send([b"x"], [1])
        driver.queue(0).kick()
        machine.settle()
        machine.clock.sleep(0.003)
        with machine.io_loop("io").held():
            plane.release()
        histogram = function.queue_counts(0).latency_ns
        assert sum(histogram) == sum(histogram[21:36]) == 1  # 2.1 ms to a minute: it took 3 ms at least
