"""Queues that are reset and set up again one by one (2.6.1, 4.1.4.3.1)."""

from acrn_dm.ring.factory import ring_format
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import WRITABLE, Shape
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import DriverQueue, VirtioDriver
from acrn_dm.testing.register_access import NO_VECTOR

NEEDS = ("RING_RESET",)
A_WHILE_S = 0.05


def _states(bench: Bench, index: int) -> tuple[int, int]:
    """queue_reset and queue_enable of a queue."""
    registers = bench.modern
    registers.write("queue_select", index)
    return registers.read("queue_reset"), registers.read("queue_enable")


def _renew(
    bench: Bench, driver: VirtioDriver, index: int, *, size: int | None = None, vector: int | None = None
) -> DriverQueue:
    """Queue *index*, reset and set up again."""
    driver.reset_queue(index)
    queue = driver.setup_queue(index, size=size, vector=vector)
    bench.machine.settle()
    return queue


def _shape(bench: Bench, index: int) -> Shape:
    """What the queue takes, or may take."""
    return bench.answers.get(index, WRITABLE)


@rule("pci.common.queue_reset.reset0", "pci.common.queue_reset.after_enable", needs=NEEDS)
def queue_reset_reads_0_unless_asked_for(bench: Bench) -> None:
    """4.1.4.3.1: after a reset of the device, and when the queue is enabled; also when it is enabled anew."""
    driver = bench.start()
    for index in list(driver.queues):
        assert _states(bench, index) == (0, 1), f"queue {index} is enabled and shows {_states(bench, index)}"
        _renew(bench, driver, index)
        assert _states(bench, index) == (0, 1), f"queue {index} is enabled anew and shows {_states(bench, index)}"
    for index in list(driver.queues):
        driver.reset_queue(index)
    driver.reset()
    for index in driver.all_queues():
        assert _states(bench, index) == (0, 0), f"after a reset queue {index} shows {_states(bench, index)}"


@rule("pci.common.queue_reset.do", needs=NEEDS, over=("pairs",))
def one_queue_is_reset_and_the_others_go_on(bench: Bench) -> None:
    """4.1.4.3.1."""
    driver = bench.start()
    for index in list(driver.queues):
        driver.reset_queue(index)
        bench.exchange_all(driver)
        maximum = bench.modern.queue_size(index)
        assert bench.modern.read("queue_desc") == 0, f"queue {index} keeps its place over a reset of its own"
        driver.setup_queue(index, size=max(1, maximum // 2))
        bench.exchange_all(driver)


@rule("pci.common.queue_reset.done", needs=NEEDS)
def both_registers_read_0_when_the_reset_is_over(bench: Bench) -> None:
    """4.1.4.3.1: also of a queue that is reset twice."""
    driver = bench.start()
    for index in list(driver.queues):
        for _ in range(2):
            bench.modern.write("queue_select", index)
            bench.modern.write("queue_reset", 1)
            over = bench.wait(lambda i=index: not _states(bench, i)[0])  # type: ignore[misc]
            assert over, f"queue {index}: its reset does not end"
            assert _states(bench, index) == (0, 0), f"queue {index} was reset and shows {_states(bench, index)}"


@rule("pci.common.queue_reset.ongoing", needs=NEEDS)
def nothing_is_written_once_queue_reset_reads_0(bench: Bench) -> None:
    """4.1.4.3.1: a reset that is not over reads as 1; so what was in flight leaves memory alone from then on."""
    for index, queue, shape in _answering(bench):
        for _ in range(3):
            queue.send(shape.out, shape.in_)
        blocks = queue.writable_places
        queue.kick(force=True)
        bench.machine.io_loop("io").step()
        before = _reset_and_look(bench, queue, blocks)
        bench.wait(lambda: False, A_WHILE_S)
        assert _look(bench, queue, blocks) == before, f"queue {index}: memory changes after its reset"


@rule("vqreset.no_exec", needs=NEEDS, over=("pairs",))
def what_is_made_available_to_a_reset_queue_stays(bench: Bench) -> None:
    """2.6.1.1."""
    driver = bench.start()
    for index, queue in list(driver.queues.items()):
        shape = _shape(bench, index)
        driver.reset_queue(index)
        queue.send(shape.out, shape.in_)
        blocks = queue.writable_places
        before = _look(bench, queue, blocks)
        driver.registers.notify(index)
        bench.wait(lambda: False, A_WHILE_S)
        assert _look(bench, queue, blocks) == before, f"queue {index}: served after its reset"
        queue.forget()
    for index in driver.all_queues():
        if index not in driver.queues and index in bench.answers:
            driver.setup_queue(index)
    bench.exchange_all(driver)


@rule("vqreset.no_notify", needs=NEEDS, interrupts="msix")
def no_interrupt_of_a_reset_queue(bench: Bench) -> None:
    """2.6.1.1: neither for what was in flight nor for what comes after."""
    for index, queue, shape in _answering(bench):
        driver = queue.driver
        queue.send(shape.out, shape.in_)
        queue.kick(force=True)
        bench.machine.io_loop("io").step()
        driver.reset_queue(index)
        before = driver.queue_interrupts(index)
        queue.send(shape.out, shape.in_)
        driver.registers.notify(index)
        bench.wait(lambda: False, A_WHILE_S)
        assert driver.queue_interrupts(index) == before, f"queue {index}: an interrupt after its reset"
        queue.forget()


@rule("vqreset.default_state", needs=NEEDS)
def reset_queue_begins_anew(bench: Bench) -> None:
    """2.6.1.1: both indices begin at 0, the size is the maximum, no vector is mapped."""
    for index, queue, shape in _answering(bench):
        maximum = bench.modern.queue_size(index)
        driver = queue.driver
        for _ in range(3):
            bench.exchange(driver.queue(index), shape)
            driver.reset_queue(index)
            assert bench.modern.queue_size(index) == maximum, f"queue {index} keeps its size over a reset of its own"
            vector = bench.modern.read("queue_msix_vector")
            assert vector == NO_VECTOR, f"queue {index} keeps vector {vector} over a reset of its own"
            fresh = driver.setup_queue(index, size=max(maximum // 2, 1))
            assert not fresh.completed(), f"queue {index} returns chains of before its reset"
            bench.exchange(fresh, shape)


@rule("vqreset.reenable_observe_config", needs=NEEDS, interrupts="msix")
def queue_comes_back_as_its_driver_set_it_up(bench: Bench) -> None:
    """2.6.1.2: other size, other place, other vector."""
    for index, queue, shape in _answering(bench):
        driver = queue.driver
        size, vector = queue.ring.layout.size, driver.default_vector(index)
        needed = len(shape.out) + len(shape.in_)
        for entries, other in ((max(size // 4, needed), 0), (size, vector), (max(size // 2, needed), 0)):
            fresh = _renew(bench, driver, index, size=1 << (entries.bit_length() - 1), vector=other)
            fired = driver.interrupts(other)
            for _ in range(fresh.ring.layout.size // needed + 2):  # once around
                bench.exchange(fresh, shape)
            assert driver.interrupts(other) > fired, f"queue {index}: no interrupt by its new vector"
        _renew(bench, driver, index)


def _answering(bench: Bench) -> list[tuple[int, DriverQueue, Shape]]:
    """Queues that return chains, of one driver."""
    return [(queue.index, queue, shape) for queue, shape in bench.answering(bench.start())]


def _look(bench: Bench, queue: DriverQueue, blocks: list[tuple[int, int]]) -> list[bytes]:
    """What a device may write: the parts of the ring, of which the driver leaves its own alone here, and buffers."""
    parts = ring_format(queue.driver.features).parts(queue.ring.layout)
    places = [*((part.gpa, part.length) for part in parts), *blocks]
    return [bench.machine.memory.read(gpa, length) for gpa, length in places]


def _reset_and_look(bench: Bench, queue: DriverQueue, blocks: list[tuple[int, int]]) -> list[bytes]:
    """Reset *queue*; what its memory is when that reads as over. Raises NotApplicable where it is over too soon."""
    registers = bench.modern
    registers.write("queue_select", queue.index)
    registers.write("queue_reset", 1)
    if not bench.wait(lambda: not registers.read("queue_reset")):
        raise NotApplicable("the reset does not end")
    return _look(bench, queue, blocks)
