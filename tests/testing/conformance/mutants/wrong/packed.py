"""Devices that are wrong about packed rings: in their descriptors, their buffer ids, their event suppression."""

from typing import Any

from tests.testing.conformance.mutants.own_ring import OnOwnRing, OwnRing
from tests.testing.conformance.mutants.registry import breaks

AVAIL, USED, WRITE = 1 << 7, 1 << 15, 2
ENABLE, DISABLE, DESC = 0, 1, 2
LEN_AT, ID_AT, FLAGS_AT = 8, 12, 14


class PackedOwn(OwnRing):
    """The real ring, with the places of its fields."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pushed: list[int] = []  # slots of descriptors used since the last publish

    def slot(self, position: int) -> int:
        return int(self.registers.desc) + 16 * (position & 0x7FFF)

    @property
    def next_used(self) -> int:
        return int(self.real.position.base) >> 16

    @property
    def driver_event(self) -> tuple[int, int]:
        return self.peek(self.registers.avail), self.peek(self.registers.avail + 2)

    def ask(self, event: int, flags: int) -> None:
        """Write the device's event suppression structure."""
        self.poke(self.registers.used, event | flags << 16, 4)

    def push(self, chain: Any, written: int | None = None) -> None:
        self.pushed.append(self.slot(self.next_used))
        self.real.push(chain, written)

    def publish(self) -> bool:
        used, self.pushed = self.pushed, []
        wants = bool(self.real.publish())
        for at in used:
            self.spoil(at)
        return self.wish(wants, len(used))

    def spoil(self, at: int) -> None:
        """What is wrong in a used descriptor."""

    def wish(self, wants: bool, count: int) -> bool:
        """Whether to interrupt, where the right device does if it *wants*."""
        return wants


class _Silent(PackedOwn):
    def wish(self, wants: bool, count: int) -> bool:
        return False


@breaks("d.packed.event_enable", "d.packed.event_desc")
class NeverInterruptsForPackedRings(OnOwnRing):
    """Returns chains and never says so."""

    ring_class = _Silent


class _Loud(PackedOwn):
    def wish(self, wants: bool, count: int) -> bool:
        return count > 0


@breaks("d.packed.event_disable")
class InterruptsWithEventsDisabled(OnOwnRing):
    """Interrupts for every batch, whatever the driver's event flags say."""

    ring_class = _Loud


class _NoDescriptors(PackedOwn):
    def wish(self, wants: bool, count: int) -> bool:
        return count > 0 and self.driver_event[1] != DISABLE


@breaks("d.packed.event_desc")
class TakesDescriptorEventsForEnabled(OnOwnRing):
    """Interrupts for each batch where it is asked to at one descriptor."""

    ring_class = _NoDescriptors


class _NoLaps(PackedOwn):
    def publish(self) -> bool:
        used = [(at - self.registers.desc) // 16 for at in self.pushed]
        wants = super().publish()
        event, flags = self.driver_event
        return event & 0x7FFF in used or wants if flags == DESC else wants


@breaks("d.packed.event_desc")
class LooksAtNoWrapCounter(OnOwnRing):
    """Interrupts at the descriptor it is asked for, on the wrong lap as well."""

    ring_class = _NoLaps


class _Deaf(PackedOwn):
    def enable_kicks(self) -> bool:
        self.real.enable_kicks()
        self.ask(0, DISABLE)
        return False


@breaks("packed.avail_notify.may_suppress", "dm.lost_chain", "dm.lost_some")
class NeverEnablesKicksOfPackedRings(OnOwnRing):
    """Disables kicks and leaves it at that."""

    ring_class = _Deaf


class _Stale(PackedOwn):
    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        if self.event_idx:
            self.ask(0x8000, DESC)
        return more


@breaks("packed.avail_notify.may_suppress", "dm.lost_some")
class AsksForTheFirstDescriptorOnly(OnOwnRing):
    """Never moves the descriptor at which it wants a kick."""

    ring_class = _Stale


class _Reserved(PackedOwn):
    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        self.poke(self.registers.used + 2, self.peek(self.registers.used + 2) | 1 << 9)
        return more


@breaks("d.packed.event_reserved0")
class SetsReservedEventFlags(OnOwnRing):
    """Sets a bit of the event flags that is reserved."""

    ring_class = _Reserved


class _DescAnyway(PackedOwn):
    def enable_kicks(self) -> bool:
        more = bool(self.real.enable_kicks())
        self.ask(int(self.real.next_avail), DESC)
        return more


@breaks("d.packed.event_desc_needs_feature")
class AsksForADescriptorWithoutEventIdx(OnOwnRing):
    """Asks for a kick at one descriptor where EVENT_IDX was not negotiated."""

    ring_class = _DescAnyway


class _AlwaysWrite(PackedOwn):
    def spoil(self, at: int) -> None:
        self.poke(at + FLAGS_AT, self.peek(at + FLAGS_AT) | WRITE)


@breaks("d.packed.used_write_flag")
class SaysThatItWroteToReadableChains(OnOwnRing):
    """Sets WRITE in every used descriptor."""

    ring_class = _AlwaysWrite


class _NeverWrite(PackedOwn):
    def spoil(self, at: int) -> None:
        self.poke(at + FLAGS_AT, self.peek(at + FLAGS_AT) & ~WRITE)


@breaks("d.packed.used_write_flag")
class NeverSaysThatItWrote(OnOwnRing):
    """Leaves WRITE out of every used descriptor, so that drivers take the length for nothing."""

    ring_class = _NeverWrite


class _ShortIds(PackedOwn):
    def spoil(self, at: int) -> None:
        self.poke(at + ID_AT, self.peek(at + ID_AT) & 0xFF)


@breaks("d.packed.id_any")
class CutsBufferIds(OnOwnRing):
    """Keeps eight bits of a buffer id."""

    ring_class = _ShortIds


class _FirstIds(PackedOwn):
    """The id of the descriptor that the used one overwrites: the first of the list, where nothing is out of order."""

    def push(self, chain: Any, written: int | None = None) -> None:
        first = self.peek(self.slot(self.next_used) + ID_AT)
        super().push(chain, written)
        self.poke(self.slot_before(chain), first)

    def slot_before(self, chain: Any) -> int:
        return self.pushed[-1] + ID_AT


@breaks("d.packed.id_last")
class ReturnsTheFirstBufferId(OnOwnRing):
    """Takes the buffer id of a list's first descriptor."""

    ring_class = _FirstIds


class _UsesAll(PackedOwn):
    def push(self, chain: Any, written: int | None = None) -> None:
        begin = self.next_used
        super().push(chain, written)
        end = self.next_used
        at = (begin & 0x7FFF) + 1
        while at < (end & 0x7FFF):  # the rest of the list, up to the end of the ring
            self.poke(self.slot(at) + LEN_AT, 0, 4)
            at += 1


@breaks("d.packed.one_used")
class WritesToEveryDescriptorOfAList(OnOwnRing):
    """Marks all of a list's descriptors, where the first one stands for the list."""

    ring_class = _UsesAll


class _Late(PackedOwn):
    last: int | None = None

    def spoil(self, at: int) -> None:
        if self.last is not None:
            self.poke(self.last, 0x0BAD, 4)
        self.last = at


@breaks("packed.desc.no_change_after_used")
class ChangesADescriptorAfterItWasUsed(OnOwnRing):
    """Writes to the used descriptor of the chain before."""

    ring_class = _Late


class _WrongMarks(PackedOwn):
    def spoil(self, at: int) -> None:
        self.poke(at + FLAGS_AT, self.peek(at + FLAGS_AT) | USED | AVAIL)


@breaks("d.packed.used_flags", "d.packed.wrap_init", "packed.used_write_order")
class NeverTurnsItsWrapCounter(OnOwnRing):
    """Marks descriptors as used as on the first lap, on each lap."""

    ring_class = _WrongMarks


class _Boasts(PackedOwn):
    def spoil(self, at: int) -> None:
        if self.peek(at + FLAGS_AT) & WRITE:
            self.poke(at + LEN_AT, self.peek(at + LEN_AT, 4) + 1, 4)


@breaks("d.packed.used_len")
class ClaimsOneByteMoreInPackedRings(OnOwnRing):
    """Claims a byte more than it wrote."""

    ring_class = _Boasts
