"""Notification suppression in both directions (2.7.7, 2.7.9, 2.7.10)."""

from collections.abc import Iterator

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import split
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import EVENT_IDX, NEEDS_RESET, DriverQueue, VirtioDriver


def queues(bench: Bench, *, event_idx: bool) -> Iterator[tuple[VirtioDriver, DriverQueue, Shape]]:
    """Each answering queue under a driver of its own, which leaves its event fields to the rule."""
    driver = bench.start()
    wanted = bench.features if event_idx else bench.features & ~EVENT_IDX
    for index in [queue.index for queue, _ in bench.answering(driver)]:
        bench.restart(driver, wanted)
        queue = driver.queue(index)
        queue.quiet = True  # ``completed`` leaves flags and used_event as they are
        yield driver, queue, bench.answers[index]


@rule("split.used_notify.flag0", ring="split", over=("interrupts", "transport"))
def interrupts_when_flags_are_0(bench: Bench) -> None:
    """2.7.7.2."""
    for driver, queue, shape in queues(bench, event_idx=False):
        for _ in range(3):
            bench.exchange(queue, shape)
            assert bench.notified(driver), f"queue {queue.index}: no interrupt for a used buffer"


@rule("split.used_notify.flag1", ring="split", over=("interrupts",))
def is_silent_when_flags_are_1(bench: Bench) -> None:
    """2.7.7.2."""
    for driver, queue, shape in queues(bench, event_idx=False):
        split(queue).set_avail_flags(1)
        for _ in range(3):
            bench.exchange(queue, shape)
            assert not bench.notified(driver), f"queue {queue.index}: an interrupt, with NO_INTERRUPT set"


@rule("split.used_notify.ignore_used_event", ring="split")
def ignores_used_event_without_event_idx(bench: Bench) -> None:
    """2.7.7.2."""
    for driver, queue, shape in queues(bench, event_idx=False):
        for event in (100, 0xFFF0):
            split(queue).set_used_event(event)
            bench.exchange(queue, shape)
            assert bench.notified(driver), f"queue {queue.index}: silent because of used_event {event}"


@rule("split.used_notify.ignore_flag_bit0", ring="split", needs=("EVENT_IDX",))
def ignores_flags_with_event_idx(bench: Bench) -> None:
    """2.7.7.2."""
    for driver, queue, shape in queues(bench, event_idx=True):
        split(queue).set_avail_flags(1)
        split(queue).set_used_event(0)
        bench.exchange(queue, shape)
        assert bench.notified(driver), f"queue {queue.index}: silent because of flags, with EVENT_IDX"


@rule("split.used_notify.event_match", ring="split", over=("interrupts", "transport"), needs=("EVENT_IDX",))
def interrupts_when_used_event_is_passed(bench: Bench) -> None:
    """2.7.7.2: also in the middle of a batch."""
    for driver, queue, shape in queues(bench, event_idx=True):
        split(queue).set_used_event(0)
        bench.exchange(queue, shape)
        assert bench.notified(driver), f"queue {queue.index}: no interrupt at used_event"
        room = queue.ring.free_descriptors // (len(shape.out) + len(shape.in_))
        batch = max(1, min(4, room))
        split(queue).set_used_event(1 + batch // 2)
        for _ in range(batch):
            queue.send(shape.out, shape.in_)
        queue.kick(force=True)
        assert len(bench.collect(queue, batch)) == batch
        if batch > 1:
            assert bench.notified(driver), f"queue {queue.index}: no interrupt for used_event within a batch"


@rule("split.used_notify.event_nomatch", ring="split", over=("interrupts",), needs=("EVENT_IDX",))
def is_silent_before_and_behind_used_event(bench: Bench) -> None:
    """2.7.7.2."""
    for driver, queue, shape in queues(bench, event_idx=True):
        for event in (1000, 0x8000, 0xFFFF):
            split(queue).set_used_event(event)
            bench.exchange(queue, shape)
            assert not bench.notified(driver), f"queue {queue.index}: an interrupt, with used_event at {event}"


@rule("split.avail_notify.flags_01", ring="split")
def used_flags_are_0_or_1_without_event_idx(bench: Bench) -> None:
    """2.7.9.1."""
    for _, queue, shape in queues(bench, event_idx=False):
        for _ in range(3):
            bench.exchange(queue, shape)
            flags = split(queue).used_flags()
            assert flags in (0, 1), f"queue {queue.index}: used flags {flags:#x}"


@rule("split.avail_notify.event_flags_0", ring="split", needs=("EVENT_IDX",))
def used_flags_are_0_with_event_idx(bench: Bench) -> None:
    """2.7.9.1."""
    for _, queue, shape in queues(bench, event_idx=True):
        for _ in range(3):
            bench.exchange(queue, shape)
            flags = split(queue).used_flags()
            assert flags == 0, f"queue {queue.index}: used flags {flags:#x} with EVENT_IDX"


@rule("split.avail_notify.flags_advise", ring="split", over=("transport",))
def needs_no_kick_that_it_does_not_ask_for(bench: Bench) -> None:
    """2.7.9: what comes while it wants none is served all the same."""
    for _, queue, shape in queues(bench, event_idx=False):
        kick_as_asked(bench, queue, shape)


@rule("split.avail_notify.avail_event", ring="split", over=("transport",), needs=("EVENT_IDX",))
def needs_no_kick_before_avail_event(bench: Bench) -> None:
    """2.7.9: nothing is lost between looking and asking."""
    for _, queue, shape in queues(bench, event_idx=True):
        kick_as_asked(bench, queue, shape)


def kick_as_asked(bench: Bench, queue: DriverQueue, shape: Shape) -> None:
    for count in (1, 2, 3, 1, 2):
        fitting = max(1, min(count, queue.ring.free_descriptors // (len(shape.out) + len(shape.in_))))
        sent = []
        for _ in range(fitting):
            sent.append(queue.send(shape.out, shape.in_))
            queue.kick()
        came = sorted(done.token for done in bench.collect(queue, fitting))
        assert came == sent, f"queue {queue.index}: kicked as asked, sent {sent}, got back {came}"


@rule("split.avail_notify.spurious", over=("transport",))
def bears_spurious_kicks(bench: Bench) -> None:
    """2.7.9.1: before set-up, of empty queues, of queues that do not exist."""
    driver = bench.driver()
    for _ in range(2):
        _kick_everywhere(bench, driver)
        bench.machine.settle()
        assert not driver.status & NEEDS_RESET, "a spurious kick broke the device"
        bench.restart(driver)
    bench.exchange_all(driver)


def _kick_everywhere(bench: Bench, driver: VirtioDriver) -> None:
    if bench.setup.legacy:
        for index in (*range(70), 0xFFFF):
            driver.registers.notify(index)
        return
    place = bench.modern.notification
    for at in range(0, place.length, 2):
        for width in (1, 2, 4):
            bench.function.bar_write(place.bar, place.offset + at, width, 0xFFFF & ((1 << 8 * width) - 1))
