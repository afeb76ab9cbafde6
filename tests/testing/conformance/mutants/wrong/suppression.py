"""Devices that are wrong about notifications, in both directions."""

from collections.abc import Callable, Sequence

from acrn_dm import Queue
from tests.testing.conformance.mutants.own_ring import OnOwnRing, OwnRing
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Right


class _Silent(OwnRing):
    def publish(self) -> bool:
        self.real.publish()
        return False


@breaks("split.used_notify.flag0", "split.used_notify.event_match", "d.pci.msix_queue", "d.pci.intx_queue")
class NeverInterrupts(OnOwnRing):
    """Returns chains and never says so."""

    ring_class = _Silent


class _Loud(OwnRing):
    def publish(self) -> bool:
        before = self.peek(self.used_idx_at)
        self.real.publish()
        return before != self.peek(self.used_idx_at)


@breaks("split.used_notify.flag1", "split.used_notify.event_nomatch")
class AlwaysInterrupts(OnOwnRing):
    """Interrupts for every batch, whatever the driver wants."""

    ring_class = _Loud


class _FlagsOnly(OwnRing):
    def publish(self) -> bool:
        before = self.peek(self.used_idx_at)
        self.real.publish()
        return before != self.peek(self.used_idx_at) and not self.avail_flags & 1


@breaks("split.used_notify.ignore_flag_bit0", "split.used_notify.event_nomatch", "split.used_notify.event_match")
class LooksAtFlagsWithEventIdx(OnOwnRing):
    """Goes by the available ring's flags, also where EVENT_IDX was negotiated."""

    ring_class = _FlagsOnly


class _FlagsToo(OwnRing):
    def publish(self) -> bool:
        return bool(self.real.publish()) and not self.avail_flags & 1


@breaks("split.used_notify.ignore_flag_bit0")
class HonoursFlagsBesideEventIdx(OnOwnRing):
    """Goes by used_event, and by bit 0 of the flags as well."""

    ring_class = _FlagsToo


class _EventOnly(OwnRing):
    def publish(self) -> bool:
        if self.event_idx:
            return bool(self.real.publish())
        old = self.peek(self.used_idx_at)
        self.real.publish()
        new = self.peek(self.used_idx_at)
        return (new - self.used_event - 1) & 0xFFFF < (new - old) & 0xFFFF


@breaks("split.used_notify.ignore_used_event", "split.used_notify.flag0", "split.used_notify.flag1")
class LooksAtTheEventWithoutEventIdx(OnOwnRing):
    """Goes by used_event where EVENT_IDX was not negotiated."""

    ring_class = _EventOnly


class _OffByOne(OwnRing):
    def publish(self) -> bool:
        old = self.peek(self.used_idx_at)
        wants = bool(self.real.publish())
        new = self.peek(self.used_idx_at)
        return (new - self.used_event - 2) & 0xFFFF < (new - old) & 0xFFFF if self.event_idx else wants


@breaks("split.used_notify.event_match", "split.used_notify.event_nomatch")
class InterruptsOneTooLate(OnOwnRing):
    """Compares used_event with the index behind the one that the driver asked for."""

    ring_class = _OffByOne


class _Deaf(OwnRing):
    def enable_kicks(self) -> bool:
        self.real.avail_idx()
        return False

    def disable_kicks(self) -> None:
        if self.event_idx:
            self.poke(self.registers.used + 4 + 8 * self.registers.size, self.real.next_avail - 1 & 0xFFFF)
        else:
            self.poke(self.registers.used, 1)


@breaks("split.avail_notify.flags_advise", "split.avail_notify.avail_event", "dm.lost_chain")
class NeverAsksForKicks(OnOwnRing):
    """Switches kicks off and leaves it at that."""

    ring_class = _Deaf


class _FlagsWithEvent(OwnRing):
    def disable_kicks(self) -> None:
        self.poke(self.registers.used, 1)

    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        self.poke(self.registers.used, 1 if self.event_idx else 0)
        return more


@breaks("split.avail_notify.event_flags_0")
class SetsFlagsWithEventIdx(OnOwnRing):
    """Sets NO_NOTIFY in the used ring's flags although EVENT_IDX was negotiated."""

    ring_class = _FlagsWithEvent


class _OddFlags(OwnRing):
    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        if not self.event_idx:
            self.poke(self.registers.used, 0x8000)
        return more


@breaks("split.avail_notify.flags_01")
class SetsUnknownFlags(OnOwnRing):
    """Sets a bit in the used ring's flags that nobody has defined."""

    ring_class = _OddFlags


class _StaleEvent(OwnRing):
    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        if self.event_idx:
            self.poke(self.registers.used + 4 + 8 * self.registers.size, 0)
        return more


@breaks("split.avail_notify.avail_event", "dm.lost_some")
class LeavesAvailEventAtZero(OnOwnRing):
    """Never moves avail_event, so that all kicks but the first are suppressed."""

    ring_class = _StaleEvent


@breaks("split.used_notify.flag1", "split.used_notify.event_nomatch")
class InterruptsForNothing(Right):
    """Interrupts at each kick, used buffers or not."""

    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        queue.call()


@breaks("split.avail_notify.spurious", "dm.exception")
class FailsForASpuriousKick(Right):
    """Takes a kick without a chain for the driver's fault."""

    def handle_queue(self, queue: Queue) -> None:
        chains = queue.pop_batch()
        if not chains:
            self.fail(RuntimeError("nothing there"))
        for chain in chains:
            self.answer(queue, chain)


class _Calls(Right):
    """A device that replaces the queues' calls."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        raise NotImplementedError

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        calls = {queue.index: self.call_of(queue) for queue in queues}
        for queue in queues:
            queue.call = calls[queue.index]


@breaks("d.pci.msix_queue", "pci.msix.map_any")
class InterruptsOnAnotherQueuesVector(_Calls):
    """Interrupts on the vector of the first queue for every queue."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        return self.queues[0].call


@breaks("d.pci.msix_queue", "d.pci.intx_queue", "pci.isr.queue_bit", "d.pci.isr_bits")
class InterruptsAsForConfiguration(_Calls):
    """Says that the configuration changed when chains were used."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        call: Callable[[], None] = self.function.config_interrupt
        return call


@breaks("pci.used_notify.no_vector")
class InterruptsWithoutAVector(_Calls):
    """Interrupts on vector 0 where the driver has mapped the queue to none."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        real = queue.call

        def call() -> None:
            if self.ring_registers(queue.index).vector == 0xFFFF and self.function.interrupts.msix_enabled:
                self.function.msix.raise_vector(0)
            else:
                real()

        return call


@breaks("pci.isr.queue_bit", "d.pci.intx_queue")
class PullsThePinAndNotTheIsr(_Calls):
    """Asserts the pin for used buffers, and leaves the ISR status at 0."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        real = queue.call

        def call() -> None:
            if self.function.interrupts.msix_enabled:
                real()
            else:
                self.function.intx.set(True)

        return call


@breaks("split.used_notify.flag0", "d.pci.msix_queue", "d.pci.msix_mask")
class DropsWhatIsMasked(_Calls):
    """Forgets an interrupt whose vector is masked, instead of keeping it pending."""

    def call_of(self, queue: Queue) -> Callable[[], None]:
        real = queue.call

        def call() -> None:
            vector = self.ring_registers(queue.index).vector
            if not self.function.interrupts.msix_enabled or self.function.msix.message(vector) is not None:
                real()

        return call
