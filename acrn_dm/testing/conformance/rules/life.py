"""A device's life as a whole: what it raises, loses or leaves behind, where no row of the specification says it."""

import os
import threading

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import BOTH, GENERIC
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import FEATURES_OK, NEEDS_RESET, VirtioDriver

ROUNDS = 3
MORE = 8  # chains of a shape that came back once


@rule("dm.exception", over=("transport", "pairs"))
def raises_nothing_but_guest_errors(bench: Bench) -> None:
    """Every method is called, with a guest that does odd things; the watch hears the rest."""
    driver = bench.start()
    for shape in GENERIC:
        for queue in list(driver.queues.values()):
            if len(shape.out) + len(shape.in_) <= queue.ring.free_descriptors:
                queue.send(shape.out, shape.in_)
                queue.kick(force=True)
    bench.machine.settle()
    for at in range(bench.config_size):
        driver.registers.write_config(at, 1, driver.registers.read_config(at, 1))
    bench.restart(driver)
    driver.reset()
    bench.machine.reset()


@rule("dm.lost_chain")
def returns_something(bench: Bench) -> None:
    """Of all queues and probes one at least comes back. A device that keeps all it is given, until something happens
    outside, lists the reason.
    """
    count = len(bench.queues(bench.driver()))
    assert bench.answers, f"no chain of any shape came back from any of {count} queues"


@rule("dm.lost_some", over=("transport", "pairs"))
def returns_every_chain_of_a_shape_that_it_returned(bench: Bench) -> None:
    """One after the other and many at once. A device whose answers depend on something outside lists the reason."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        for _ in range(MORE):
            bench.exchange(queue, shape)
        room = queue.ring.free_descriptors // (len(shape.out) + len(shape.in_))
        sent = [queue.send(shape.out, shape.in_) for _ in range(min(MORE, room))]
        queue.kick()
        came = sorted(done.token for done in bench.collect(queue, len(sent)))
        assert came == sent, f"queue {queue.index}: sent {sent} at once, got back {came}"


@rule("dm.double_push", over=("transport", "pairs"))
def returns_each_chain_once(bench: Bench) -> None:
    """A driver whose descriptor comes back twice frees memory twice."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        room = queue.ring.free_descriptors // (len(shape.out) + len(shape.in_))
        sent = [queue.send(shape.out, shape.in_) for _ in range(max(1, min(3, room)))]
        queue.kick()
        came = sorted(done.token for done in bench.collect(queue, len(sent)))
        assert sorted(set(came)) == came, f"queue {queue.index}: sent {sent}, got back {came}"


@rule("dm.start_quiet", over=("interrupts", "transport"))
def says_nothing_at_driver_ok(bench: Bench) -> None:
    """A driver that has just started has nothing to be told."""
    driver = bench.driver()
    driver.reset()
    bench.notified(driver)
    driver.start(bench.features, queues=bench.queues(driver))
    assert not bench.notified(driver), "an interrupt at DRIVER_OK"
    assert driver.registers.read_isr() == 0, "the ISR has a bit set at DRIVER_OK"


@rule("dm.reset_works", over=("transport",))
def serves_the_next_driver_after_a_reset(bench: Bench) -> None:
    """Also when the last one left work behind, and after a reboot of the machine."""
    driver = bench.start()
    for round_ in range(ROUNDS):
        _leave_work(driver)
        bench.restart(driver)
        assert not driver.status & NEEDS_RESET, "not usable after a reset"
        bench.exchange_all(driver)
        if round_ == 1:
            bench.machine.reset()
            driver = bench.start()


def _leave_work(driver: VirtioDriver) -> None:
    for queue in driver.queues.values():
        if queue.ring.free_descriptors >= len(BOTH.out) + len(BOTH.in_):
            queue.send(BOTH.out, BOTH.in_)
            queue.kick()


@rule("dm.restart")
def behaves_as_at_first_however_often_it_is_started(bench: Bench) -> None:
    """Registers, features and configuration after a reset are those of power-on, whatever a driver wrote."""
    driver = bench.driver()
    first = (driver.registers.offered(), driver.all_queues(), bench.config)
    for _ in range(ROUNDS):
        bench.restart(driver)
        _leave_work(driver)
        _write_everywhere(bench, driver)
        bench.machine.settle()
        driver.reset()
        again = (driver.registers.offered(), driver.all_queues(), bench.config)
        assert again == first, f"features, queues and configuration were {first}, are {again}"


def _write_everywhere(bench: Bench, driver: VirtioDriver) -> None:
    """Another value into each byte of the configuration space."""
    for at in range(bench.config_size):
        driver.registers.write_config(at, 1, driver.registers.read_config(at, 1) ^ 0xFF)


@rule("dm.instance_state")
def two_instances_share_nothing(bench: Bench) -> None:
    """Not what their drivers wrote, not whether they run, not their queues."""
    one, first = bench.start(), bench.config
    other = bench.another()
    two = other.start()
    assert bench.config == first, "the configuration changed when a second instance was made"
    _write_and_compare(one, two, bench.config_size)
    _write_and_compare(two, one, bench.config_size)
    for index in bench.answers:
        _interleave(bench, other, one, two, index)
    one.reset()
    assert two.status & FEATURES_OK, "one driver's reset resets the other's device"
    other.exchange_all(two)


def _write_and_compare(writer: VirtioDriver, reader: VirtioDriver, size: int) -> None:
    before = [reader.registers.read_config(at, 1) for at in range(size)]
    for at in range(size):
        writer.registers.write_config(at, 1, writer.registers.read_config(at, 1) ^ 0xFF)
    after = [reader.registers.read_config(at, 1) for at in range(size)]
    assert after == before, "what one driver writes into its configuration the other one reads"


def _interleave(bench: Bench, other: Bench, one: VirtioDriver, two: VirtioDriver, index: int) -> None:
    """A chain of the one's is given while the other's is under way."""
    shape = bench.answers[index]
    queues = (one.queue(index), two.queue(index))
    tokens = [queue.send(shape.out, shape.in_) for queue in queues]
    for queue in queues:
        queue.kick()
    for where, queue, token in zip((bench, other), queues, tokens, strict=True):
        came = [done.token for done in where.collect(queue, 1)]
        assert came == [token], f"queue {index} of two instances: sent {token}, got back {came}"


@rule("dm.leak")
def leaves_no_file_and_no_thread(bench: Bench) -> None:
    """Of the second of two machines: what a process makes once is there by then."""
    bench.close()  # what stands behind the device may be for one only
    _use_once(bench)
    files, threads = _open_files(), threading.active_count()
    _use_once(bench)
    assert _open_files() == files, "files are left open"
    assert threading.active_count() == threads, "threads are left running"


def _use_once(bench: Bench) -> None:
    with Bench(bench.subject, bench.setup, bench.watch) as other:
        driver = other.start()
        for _ in range(ROUNDS):
            _leave_work(driver)
            other.machine.settle()
            other.restart(driver)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
