"""A packed ring as a whole (2.8.1, 2.8.10): sizes, places, wrap counters, the order of what is in it."""

from collections.abc import Iterator

from acrn_dm.ring.packed.layout import packed_layout, packed_parts
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import drain, lay, place, take
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import packed
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.conformance.rules.ring import exchange_at, fits, set_up_the_rest
from acrn_dm.testing.driver import DriverQueue

SIZES = (1, 3, 5, 7, 100)  # no powers of two, but for the least


def sized(bench: Bench, *sizes: int) -> Iterator[tuple[DriverQueue, Shape]]:
    """Each answering queue with rings of each of *sizes* that it can have, under a driver of its own for each size."""
    driver = bench.driver()
    bench.restart(driver)
    chosen = [(queue.index, shape, queue.ring.layout.size) for queue, shape in bench.answering(driver)]
    for size in sizes:
        driver.negotiate(bench.features)
        queues = [(driver.setup_queue(i, size=size), shape) for i, shape, maximum in chosen if size <= maximum]
        set_up_the_rest(bench, driver)
        driver.driver_ok()
        yield from ((queue, shape) for queue, shape in queues if fits(queue, shape))


@rule("d.packed.size_any", ring="packed")
def serves_rings_of_any_size(bench: Bench) -> None:
    """2.8.10.1: they need be no powers of two."""
    for queue, shape in sized(bench, *SIZES):
        for _ in range(min(queue.ring.layout.size, 4) + 1):
            bench.exchange(queue, shape)


@rule("d.packed.align", ring="packed")
def finds_packed_rings_at_the_least_alignment(bench: Bench) -> None:
    """2.8.10.1: 16 for descriptors, 4 for event structures; each on a page of its own as well."""
    for gap in (4, 4100):  # the structures at odd multiples of 4
        exchange_at(bench, lambda size, gap=gap: packed_layout(_room(bench, size, gap), size, 4, gap))  # type: ignore[misc]


def _room(bench: Bench, size: int, gap: int) -> int:
    room = sum(part.length for part in packed_parts(packed_layout(0, size))) + 2 * gap + 64
    return bench.machine.heap.take(room) + 16


@rule("d.packed.wrap_init", "packed.used_write_order", ring="packed")
def goes_round_and_round(bench: Bench) -> None:
    """2.8.1: the wrap counter begins at 1 and turns over behind the last descriptor; the next used descriptor is always
    where the last one's chain ended.
    """
    for queue, shape in sized(bench, 3, 4, 5):
        for _ in range(2 * queue.ring.layout.size + 1):
            bench.exchange(queue, shape)


@rule("packed.start_order", "packed.desc.avail_change", ring="packed")
def takes_nothing_behind_a_descriptor_that_is_not_available(bench: Bench) -> None:
    """2.8.12, 2.8.15: descriptors are taken in the ring's order, each once its AVAIL has changed."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        if queue.ring.free_descriptors < 3 * (len(shape.out) + len(shape.in_)):
            continue
        ring, laid = packed(queue), [place(bench, shape) for _ in range(3)]
        for it in laid:
            it.head = ring.add_chain(it.out, it.in_)
        ring.publish_behind()
        driver.registers.notify(queue.index)
        bench.wait(lambda ring=ring: ring.returned() > 0, 0.02)  # type: ignore[misc]
        assert not ring.returned(), f"queue {queue.index}: took a chain behind one that is not available"
        ring.publish()
        heads = [head for head, _ in drain(bench, queue, len(laid))]
        assert sorted(heads) == sorted(it.head for it in laid), f"queue {queue.index}: sent three chains, got {heads}"


@rule("packed.avail.immediate_access", ring="packed")
def serves_once_what_it_may_have_seen_before_the_kick(bench: Bench) -> None:
    """2.8.21: a device may look before it is told. Then nothing is done twice, and nothing is lost without a kick."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        laid = lay(bench, queue, shape)
        bench.machine.settle()
        take(bench, queue, laid, shape)
        driver.registers.notify(queue.index)
        bench.machine.settle()
        assert not queue.ring.returned(), f"queue {queue.index}: one chain came back twice"


@rule("packed.desc.no_change_after_used", ring="packed")
def leaves_a_used_descriptor_alone(bench: Bench) -> None:
    """2.8.15: it is the driver's again, with all that is around it."""
    driver, judged = bench.start(), 0
    for queue, shape in bench.answering(driver):
        ring, count = packed(queue), len(shape.out) + len(shape.in_)
        if ring.layout.size < 3 * count:
            continue
        begin = ring.last_used
        bench.exchange(queue, shape)
        before = [ring.desc(begin + i) for i in range(count)]
        for _ in range(ring.layout.size // count - 1):
            bench.exchange(queue, shape)
        after = [ring.desc(begin + i) for i in range(count)]
        assert after == before, f"queue {queue.index}: a used descriptor changed from {before} to {after}"
        judged += 1
    if not judged:
        raise NotApplicable("no queue has room for three requests")
