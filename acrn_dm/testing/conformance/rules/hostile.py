"""Malformed rings (2.1.2, 2.7.5): what a guest may try on any queue."""

from collections.abc import Callable

import attrs

from acrn_dm.ring import features
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rings import split
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.conformance.setup import FORMATS, PACKED, SPLIT
from acrn_dm.testing.driver import NEEDS_RESET, DriverQueue, VirtioDriver

Descriptor = tuple[int, int, int, int]
Poke = Callable[[DriverQueue], None]


@attrs.frozen
class Hostile:
    """One thing that a guest may try on a queue with rings of one of *formats*: what a call with that queue does."""

    poke: Poke
    formats: tuple[str, ...] = FORMATS

    def __call__(self, queue: DriverQueue) -> None:
        self.poke(queue)


def _poke(*descriptors: Descriptor, head: int = 0, jump: int = 0) -> Hostile:
    """Raw (gpa, length, flags, next) *descriptors*, of which *head* is made available. A *jump* of the index is for
    split rings only, and so is a *next* or a *head* that means something.
    """

    def poke(queue: DriverQueue) -> None:
        queue.ring.poke(descriptors, head)
        if jump:
            split(queue).set_avail_idx(split(queue).published_avail + jump)

    follows = any(flags & DESC_F_NEXT and following > 1 for _, _, flags, following in descriptors)
    return Hostile(poke, (SPLIT,) if jump or head or follows else FORMATS)


def _loop(length: int, *nexts: int) -> Hostile:
    """A chain without an end: by the *nexts* of split descriptors, by NEXT in all of the ring's packed ones."""

    def poke(queue: DriverQueue) -> None:
        round_ = [(RAM, length, DESC_F_NEXT, 0)] * queue.ring.layout.size
        is_split = not queue.driver.features & features.PACKED
        queue.ring.poke([(RAM, length, DESC_F_NEXT, n) for n in nexts] if is_split else round_)

    return Hostile(poke)


def _packed(*descriptors: Descriptor) -> Hostile:
    return Hostile(_poke(*descriptors).poke, (PACKED,))


RAM = 0x10_0000
HARMLESS: dict[str, Hostile] = {  # odd, and yet in order
    "length 0 only": _poke((RAM, 0, 0, 0)),
    "one byte each way": _poke((RAM, 1, DESC_F_NEXT, 1), (RAM, 1, DESC_F_WRITE, 0)),
    "nothing but one byte": _poke((RAM, 1, DESC_F_WRITE, 0)),
}
MALFORMED: dict[str, Hostile] = {
    "loop": _loop(16, 1, 0),
    "self-loop of length 0": _loop(0, 0),
    "head outside the table": _poke((RAM, 16, 0, 0), head=0xFFFF),
    "next outside the table": _poke((RAM, 16, DESC_F_NEXT, 0xFFFF)),
    "readable after writable": _poke((RAM, 16, DESC_F_NEXT | DESC_F_WRITE, 1), (RAM, 16, 0, 0)),
    "address outside RAM": _poke((1 << 40, 16, DESC_F_WRITE, 0)),
    "address wraps": _poke((2**64 - 1, 2, 0, 0)),
    "length over the end of RAM": _poke((RAM, 0xFFFF_FFFF, 0, 0)),
    "sum of lengths": _poke((RAM, 0xFFFF_FFFF, DESC_F_NEXT, 1), (RAM, 0xFFFF_FFFF, DESC_F_WRITE, 0)),
    "indirect of length 0": _poke((RAM, 0, DESC_F_INDIRECT, 0)),
    "indirect of odd length": _poke((RAM, 17, DESC_F_INDIRECT, 0)),
    "indirect with next": _poke((RAM, 16, DESC_F_INDIRECT | DESC_F_NEXT, 1), (RAM, 16, 0, 0)),
    "index jump": _poke((RAM, 16, 0, 0), jump=0x8000),
    "index backwards": _poke((RAM, 16, 0, 0), jump=-2),
    "device's own registers": _poke((0x8000_0000, 16, DESC_F_WRITE, 0)),
    "list without an end": _packed((RAM, 16, DESC_F_NEXT, 0)),
    "indirect in a list": _packed((RAM, 16, DESC_F_NEXT, 0), (RAM, 16, DESC_F_INDIRECT, 0)),
    "indirect outside RAM": _packed((1 << 40, 16, DESC_F_INDIRECT, 0)),
}
HOSTILE = MALFORMED | HARMLESS


def _of(bench: Bench, pokes: dict[str, Hostile]) -> list[tuple[str, Hostile]]:
    return [(name, poke) for name, poke in pokes.items() if bench.setup.ring in poke.formats]


def _spoil(bench: Bench, driver: VirtioDriver, index: int, poke: Hostile) -> None:
    poke(driver.queue(index))
    driver.registers.notify(index)
    bench.wait(lambda: bool(driver.status & NEEDS_RESET), 0.05)


@rule("status.needs_reset.set")
def malformed_ring_asks_for_a_reset(bench: Bench) -> None:
    """2.1.2: on every queue that the device takes chains from at a kick."""
    driver = bench.start()
    for index in [queue.index for queue, _ in bench.answering(driver)]:
        for name, poke in _of(bench, MALFORMED):
            bench.restart(driver)
            _spoil(bench, driver, index, poke)
            assert driver.status & NEEDS_RESET, f"queue {index}: no DEVICE_NEEDS_RESET for a malformed ring: {name}"


@rule("status.needs_reset.notify", over=("interrupts",))
def driver_hears_that_a_reset_is_needed(bench: Bench) -> None:
    """2.1.2."""
    driver = bench.start()
    for index in [queue.index for queue, _ in bench.answering(driver)]:
        bench.restart(driver)
        _spoil(bench, driver, index, MALFORMED["loop"])
        if not driver.status & NEEDS_RESET:
            raise NotApplicable("the device asked for no reset")
        assert bench.notified(driver), "no configuration change notification with DEVICE_NEEDS_RESET"


@rule("dm.hostile.recovers")
def malformed_ring_costs_no_more_than_a_reset(bench: Bench) -> None:
    """Whatever the queue: nothing else breaks, and the device works again."""
    driver = bench.start()
    for index in bench.queues(driver):
        for _, poke in _of(bench, HOSTILE):
            bench.restart(driver)
            _spoil(bench, driver, index, poke)
    bench.restart(driver)
    assert not driver.status & NEEDS_RESET, "not usable after a reset"
    bench.exchange_all(driver)
