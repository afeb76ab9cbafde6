"""A ring as a whole (2.7): sizes, places, indices that run on."""

from collections.abc import Callable

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.factory import make_driver_ring
from acrn_dm.ring.layout import DESC_F_NEXT, RingLayout
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import place
from acrn_dm.testing.conformance.probes import LEAST, Shape
from acrn_dm.testing.conformance.rings import split
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import EVENT_IDX, NEEDS_RESET, DriverQueue, VirtioDriver

AROUND = 1 << 16  # indices are 16 bits wide


def fits(queue: DriverQueue, shape: Shape) -> bool:
    return len(shape.out) + len(shape.in_) <= queue.ring.layout.size


def set_up_the_rest(bench: Bench, driver: VirtioDriver) -> None:
    """Queues that a rule is not about, as ever: whether a device does without them is another rule's."""
    for index in bench.queues(driver):
        if index not in driver.queues:
            driver.setup_queue(index)


@rule("d.split.size", "d.split.reduced_size", ring="split")
def serves_every_size_up_to_its_maximum(bench: Bench) -> None:
    """2.7, 4.1.4.3: each power of two; indices wrap at the size that the driver chose."""
    driver = bench.driver()
    bench.restart(driver)
    queues = [(queue.index, shape, queue.ring.layout.size) for queue, shape in bench.answering(driver)]
    largest = max(size for _, _, size in queues)
    for size in [1 << n for n in range(largest.bit_length())]:
        driver.negotiate(bench.features)
        smaller = {i: driver.setup_queue(i, size=size) for i, _, maximum in queues if size <= maximum}
        set_up_the_rest(bench, driver)
        driver.driver_ok()
        for index, shape, _ in queues:
            queue = smaller.get(index)
            for _ in range(min(size, 4) + 1 if queue is not None else 0):
                assert queue is not None
                if fits(queue, shape):
                    bench.exchange(queue, shape)


@rule("d.split.align", ring="split")
def finds_rings_at_the_least_alignment(bench: Bench) -> None:
    """2.7: 16 for descriptors, 2 for available, 4 for used; each on a page of its own as well."""
    for gap in (0, 4096):
        exchange_at(bench, lambda size, gap=gap: RingLayout.least_aligned(_room(bench, size, gap), size, gap))  # type: ignore[misc]


def _room(bench: Bench, size: int, gap: int) -> int:
    return bench.machine.heap.take(RingLayout.least_aligned(0, size, gap).end + 32)


def exchange_at(bench: Bench, place: Callable[[int], RingLayout]) -> None:
    """A chain on each queue that answers, whose ring is where *place* puts one of its size."""
    driver = bench.driver()
    bench.restart(driver)
    chosen = [(queue.index, shape, queue.ring.layout.size) for queue, shape in bench.answering(driver)]
    driver.negotiate(bench.features)
    queues = [(_placed(bench, driver, index, place(size)), shape) for index, shape, size in chosen]
    set_up_the_rest(bench, driver)
    driver.driver_ok()
    for queue, shape in queues:
        bench.exchange(queue, shape)


def _placed(bench: Bench, driver: VirtioDriver, index: int, layout: RingLayout) -> DriverQueue:
    ring = make_driver_ring(driver.features, layout, bench.machine.memory)
    driver.registers.map_vector(index, driver.default_vector(index))
    driver.registers.place_queue(index, layout)
    driver.queues[index] = DriverQueue(driver, index, ring)
    return driver.queues[index]


@rule("d.split.used_idx_free_running", "d.split.avail_idx_free_running", ring="split")
def indices_run_on_past_65536(bench: Bench) -> None:
    """2.7.6, 2.7.8: nothing is lost and nothing repeated where they wrap."""
    driver = bench.start(bench.features & ~EVENT_IDX)
    queue, shape = cheapest(bench, driver)
    _run(bench, queue, shape, AROUND + queue.ring.layout.size)


@rule("d.split.event_wrap", ring="split", interrupts="msix", needs=("EVENT_IDX",))
def fixed_used_event_comes_round_again(bench: Bench) -> None:
    """2.7.10: with used_event 0, after the first buffer and after the 65537th, and not in between."""
    driver = bench.start()
    queue, shape = cheapest(bench, driver)
    size = queue.ring.layout.size
    split(queue).set_used_event(0)
    seen = [
        _interrupts_of(bench, driver, queue, shape, count) for count in (1, size - 1, AROUND - 2 * size, size, size)
    ]
    assert seen == [1, 0, 0, 0, 1], f"interrupts at the 1st, before the 65537th, and at it: {seen}"


def _interrupts_of(bench: Bench, driver: VirtioDriver, queue: DriverQueue, shape: Shape, count: int) -> int:
    before = driver.queue_interrupts(queue.index)
    _run(bench, queue, shape, count)
    return driver.queue_interrupts(queue.index) - before


def cheapest(bench: Bench, driver: VirtioDriver) -> tuple[DriverQueue, Shape]:
    found = [(queue, shape) for queue, shape in bench.answering(driver) if fits(queue, shape)]
    if not found:
        raise NotApplicable("no queue has room for a request")
    queue, shape = min(found, key=lambda pair: pair[0].index)
    return queue, LEAST.get(bench.kind, shape)


def _run(bench: Bench, queue: DriverQueue, shape: Shape, count: int) -> None:
    """*count* chains, as many at once as the ring has room for, all of the same buffers: the driver does next to
    nothing. Both tables are written anew each time, so that this can be called again.
    """
    ring, n_heads = split(queue), _fill(bench, queue, shape)
    left, done = count, ring.used_idx()
    while left:
        batch = min(left, n_heads)
        ring.next_avail = (ring.next_avail + batch) % AROUND
        ring.publish()
        queue.driver.registers.notify(queue.index)
        done = (done + batch) % AROUND
        bench.machine.settle()
        came = ring.used_idx() == done or bench.wait(lambda done=done: ring.used_idx() == done)  # type: ignore[misc]
        assert came, f"queue {queue.index}: used idx {ring.used_idx()}, not {done}, {left} chains before the end"
        left -= batch
    ring.last_used = done


def _fill(bench: Bench, queue: DriverQueue, shape: Shape) -> int:
    """Describe as many chains of *shape* as the ring has room for, a power of two of them, and enter them all round the
    available ring: any so many entries in a row are different chains. Returns how many.
    """
    ring, laid = split(queue), place(bench, shape)
    buffers = laid.buffers
    n_heads = 1 << (ring.layout.size // len(buffers)).bit_length() - 1
    for head in range(n_heads):
        for i, (gpa, length, flags) in enumerate(buffers):
            at, last = head * len(buffers) + i, i == len(buffers) - 1
            ring.write_desc(at, gpa, length, flags | (0 if last else DESC_F_NEXT), 0 if last else at + 1)
    for entry in range(ring.layout.size):
        ring.set_avail_entry(ring.next_avail + entry, entry % n_heads * len(buffers))
    return n_heads


@rule("d.split.event_pos", ring="split", interrupts="msix", needs=("EVENT_IDX",))
def event_fields_follow_a_smaller_ring(bench: Bench) -> None:
    """2.7.10: behind ring[size] of the size that was chosen."""
    driver = bench.driver()
    bench.restart(driver)
    chosen = [(q.index, shape, q.ring.layout.size) for q, shape in bench.answering(driver)]
    for index, shape, maximum in chosen:
        for size in {maximum, max(maximum // 2, 1), min(4, maximum)}:
            driver.negotiate(bench.features)
            queue = driver.setup_queue(index, size=size)
            set_up_the_rest(bench, driver)
            driver.driver_ok()
            if not fits(queue, shape):
                continue
            before = driver.queue_interrupts(index)
            queue.quiet = True
            split(queue).set_used_event(1)  # not the first, but the second
            seen = []
            for _ in range(3):
                bench.exchange(queue, shape)
                seen.append(driver.queue_interrupts(index) - before)
            assert seen == [0, 1, 1], f"queue of {size}: interrupts after each of three buffers {seen}, used_event 1"


@rule("split.legacy.layout", transport="legacy")
def legacy_ring_is_one_area_with_the_used_part_on_a_page(bench: Bench) -> None:
    """2.7.2: sizes whose available ring ends within a page need the padding."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        layout = queue.ring.layout
        assert layout.used % 4096 == 0
        for _ in range(2):
            bench.exchange(queue, shape)
    assert not driver.status & NEEDS_RESET


@rule("d.pci.legacy.pfn", "d.pci.legacy.qsize_fixed", transport="legacy")
def legacy_queue_address_is_a_page_number_and_its_size_fixed(bench: Bench) -> None:
    """4.1.5.1.3.1."""
    driver = bench.driver()
    driver.negotiate(bench.features)
    for index in driver.all_queues():
        size = driver.registers.queue_size(index)
        driver.registers.write("queue_size", max(size // 2, 1))
        assert driver.registers.queue_size(index) == size, "the size of a legacy queue changed"
        queue = driver.setup_queue(index)
        driver.registers.write("queue_select", index)
        assert driver.registers.read("queue_address") == queue.ring.layout.desc >> 12
    driver.reset()
    driver.registers.write("queue_select", 0)
    assert driver.registers.read("queue_address") == 0, "the address is there after a reset"


@rule("dm.some_queues", over=("transport",))
def serves_a_driver_that_uses_some_of_the_queues(bench: Bench) -> None:
    """2.1: a driver enables what it needs. A device that can do nothing with those says so at once (2.1.2)."""
    driver = bench.driver()
    bench.restart(driver)
    served = 0
    for index in [queue.index for queue, _ in bench.answering(driver)]:
        driver.start(bench.features, queues=[index])
        if _refused(driver):
            continue
        bench.exchange(driver.queue(index), bench.answers[index])
        assert not driver.status & NEEDS_RESET, f"fails with queue {index} alone"
        served += 1
    if not served:
        raise NotApplicable("the device asks for a reset where it has one queue alone")


def _refused(driver: VirtioDriver) -> bool:
    """Whether the device asked for a reset, on purpose, before there was a buffer."""
    if not driver.status & NEEDS_RESET:
        return False
    try:
        driver.raise_failure()
    except GuestError:
        return True
    return False
