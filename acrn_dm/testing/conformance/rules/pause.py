"""A pause: the host stops a device between two requests, and lets it go on where it was."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import Laid, give, lay
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import NEEDS_RESET, DriverQueue, VirtioDriver

MARK, UNTOUCHED = 0x99, b"\xee"


@rule("dm.pause", over=("pairs",))
def pause_loses_and_repeats_nothing(bench: Bench) -> None:
    """Before, during and after: what was under way and what is sent while the device rests is served once, as without
    a pause; what was served before is not served again; what the driver wrote stays.
    """
    driver = bench.start()
    for at in range(bench.config_size):
        driver.registers.write_config(at, 1, driver.registers.read_config(at, 1) ^ 0xFF)
    written = driver.read_config(0, bench.config_size)
    for queue, shape in bench.answering(driver):
        _rest(bench, driver, queue, shape)
    assert driver.read_config(0, bench.config_size) == written, "what the driver wrote is gone after a pause"
    assert not driver.status & NEEDS_RESET, "the device asks for a reset after a pause"


def _rest(bench: Bench, driver: VirtioDriver, queue: DriverQueue, shape: Shape) -> None:
    served = [give(bench, queue, shape) for _ in range(2)]
    steady = len({laid.written for laid in served}) == 1
    for laid in served:
        _mark(bench, laid)
    read_by_now = queue.ring.used_elements(2) if queue.ring.layout.size >= 2 * len(served) else []
    for at, length in read_by_now:
        bench.machine.memory.write(at, UNTOUCHED * length)
    under_way = [lay(bench, queue, shape)] if _room(queue, shape) >= 2 else []
    driver.registers.notify(queue.index)
    bench.machine.settle()
    bench.pause()
    returned = queue.ring.returned()
    sent = [*under_way, lay(bench, queue, shape)]
    driver.registers.notify(queue.index)
    bench.machine.settle()
    assert queue.ring.returned() == returned, f"queue {queue.index} is used while the device rests"
    bench.resume()
    done = _collect(bench, queue, len(sent))
    heads = [laid.head for laid in sent]
    assert sorted(head for head, _ in done) == sorted(heads), f"queue {queue.index}: sent {heads}, got back {done}"
    for head, count in done:
        assert not steady or count == served[0].written, f"queue {queue.index}: {head} came back with {count} bytes"
    for laid in served:
        assert set(laid.data()) <= {MARK}, f"queue {queue.index}: a chain of before is served again after a pause"
    rewritten = [at for at, n in read_by_now if bench.machine.memory.read(at, n) != UNTOUCHED * n]
    assert not rewritten, f"queue {queue.index}: what was used before a pause is used again"
    give(bench, queue, shape)


def _mark(bench: Bench, laid: Laid) -> None:
    """The driver uses its buffers for something else: what it wrote is not what there was to be read."""
    for buffers, value in ((laid.readable, 0), (laid.writable, MARK)):
        for b in buffers:
            bench.machine.memory.write(b.gpa, bytes([value]) * len(b.before))


def _room(queue: DriverQueue, shape: Shape) -> int:
    return queue.ring.free_descriptors // (len(shape.out) + len(shape.in_))


def _collect(bench: Bench, queue: DriverQueue, count: int) -> list[tuple[int, int]]:
    """(head, written) of what comes back, without another kick."""
    done: list[tuple[int, int]] = []

    def look() -> bool:
        done.extend(queue.ring.used())
        return len(done) >= count

    bench.wait(look)
    look()
    return done
