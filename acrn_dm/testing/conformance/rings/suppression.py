"""Event suppression of packed rings in both directions (2.8.10, 2.8.14)."""

from acrn_dm.ring.packed.layout import EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import packed
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.conformance.rules.notify import kick_as_asked, queues
from acrn_dm.testing.driver import DriverQueue


@rule("d.packed.event_enable", ring="packed", over=("interrupts",))
def interrupts_when_events_are_enabled(bench: Bench) -> None:
    """2.8.10: flags 0."""
    for driver, queue, shape in queues(bench, event_idx=False):
        packed(queue).set_driver_event(0, EVENT_ENABLE)
        for _ in range(3):
            bench.exchange(queue, shape)
            assert bench.notified(driver), f"queue {queue.index}: no interrupt for a used buffer"


@rule("d.packed.event_disable", ring="packed")
def is_silent_when_events_are_disabled(bench: Bench) -> None:
    """2.8.10: flags 1, with EVENT_IDX and without."""
    for event_idx in (False, True):
        for driver, queue, shape in queues(bench, event_idx=event_idx):
            packed(queue).set_driver_event(0x8000, EVENT_DISABLE)  # the next descriptor, were it asked about
            for _ in range(3):
                bench.exchange(queue, shape)
                assert not bench.notified(driver), f"queue {queue.index}: an interrupt, with events disabled"


@rule("d.packed.event_desc", ring="packed", over=("interrupts",), needs=("EVENT_IDX",))
def interrupts_at_the_descriptor_that_it_is_asked_for(bench: Bench) -> None:
    """2.8.10: flags 2; not before and not behind, on either lap, in the middle of a batch and of a list."""
    for driver, queue, shape in queues(bench, event_idx=True):
        count = len(shape.out) + len(shape.in_)
        for after in (0, 2):
            packed(queue).interrupt_after(after, count)
            seen = [_interrupted(bench, queue, shape) for _ in range(4)]
            assert seen == [n == after for n in range(4)], f"queue {queue.index}: interrupts {seen}, asked for {after}"
        _asks_for_the_other_lap(bench, queue, shape)
        room = queue.ring.free_descriptors // count
        batch = max(1, min(4, room))
        packed(queue).interrupt_after(batch // 2, count)
        for _ in range(batch):
            queue.send(shape.out, shape.in_)
        queue.kick(force=True)
        assert len(bench.collect(queue, batch)) == batch
        assert bench.notified(driver), f"queue {queue.index}: no interrupt for a descriptor within a batch"
        packed(queue).set_driver_event(packed(queue).position_behind(count - 1), EVENT_DESC)
        assert _interrupted(bench, queue, shape), f"queue {queue.index}: no interrupt for the last of a list"


def _interrupted(bench: Bench, queue: DriverQueue, shape: Shape) -> bool:
    bench.exchange(queue, shape)
    return bool(bench.notified(queue.driver))


def _asks_for_the_other_lap(bench: Bench, queue: DriverQueue, shape: Shape) -> None:
    """The descriptor to be used next, with the wrap counter of the lap behind it: not now."""
    packed(queue).set_driver_event(packed(queue).position_behind(0) ^ 0x8000, EVENT_DESC)
    if queue.ring.layout.size > len(shape.out) + len(shape.in_):
        assert not _interrupted(bench, queue, shape), f"queue {queue.index}: an interrupt for another lap"


@rule("d.packed.event_desc_needs_feature", "d.packed.event_reserved0", ring="packed")
def asks_for_kicks_by_values_that_there_are(bench: Bench) -> None:
    """2.8.10, 2.8.14: 0 or 1, with EVENT_IDX 2 as well; the other bits are 0, and a descriptor is one of the ring's."""
    for event_idx in (False, True):
        for driver, queue, shape in queues(bench, event_idx=event_idx):
            ring, allowed = packed(queue), {EVENT_ENABLE, EVENT_DISABLE}
            for _ in range(3):
                bench.exchange(queue, shape)
                event, flags = ring.device_event()
                values = allowed | ({EVENT_DESC} if driver.features >> 29 & 1 else set())
                assert flags & EVENT_FLAGS in values, f"queue {queue.index}: event flags {flags:#x}, {values} are valid"
                assert not flags & ~EVENT_FLAGS, f"queue {queue.index}: event flags {flags:#x}, reserved bits are set"
                off = event & 0x7FFF
                assert flags != EVENT_DESC or off < ring.layout.size, f"queue {queue.index}: asks for descriptor {off}"


@rule("packed.avail_notify.may_suppress", ring="packed")
def needs_no_kick_that_a_packed_ring_does_not_ask_for(bench: Bench) -> None:
    """2.8.21: what comes while it wants none is served all the same, and nothing is lost between looking and asking."""
    for event_idx in (False, True):
        for _, queue, shape in queues(bench, event_idx=event_idx):
            kick_as_asked(bench, queue, shape)
