"""Devices that are wrong about packed rings: in what they take from them, and what they do with the buffers."""

from collections.abc import Sequence
from typing import Any

from acrn_dm import Chain, Queue
from tests.testing.conformance.mutants.own_ring import OnOwnRing
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Right
from tests.testing.conformance.mutants.wrong.packed import AVAIL, FLAGS_AT, USED, WRITE, PackedOwn

MARKS = AVAIL | USED


class _Impatient(PackedOwn):
    """Makes a descriptor available itself where the next one is."""

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        at, marks = self.next_avail_slot
        behind = self.peek(self.slot(at + 1) + FLAGS_AT) & MARKS
        flags = self.peek(self.slot(at) + FLAGS_AT)
        if at + 1 < self.registers.size and behind == marks != flags & MARKS:
            self.poke(self.slot(at) + FLAGS_AT, flags & ~MARKS | marks)
        return list(self.real.pop_batch(limit))

    @property
    def next_avail_slot(self) -> tuple[int, int]:
        """Where it is, and what AVAIL and USED are once the driver has shown it."""
        position = int(self.real.next_avail)
        return position & 0x7FFF, AVAIL if position >> 15 else USED


@breaks("packed.start_order", "packed.desc.avail_change")
class TakesWhatIsNotAvailable(OnOwnRing):
    """Takes a descriptor that is not available where one behind it is."""

    ring_class = _Impatient


class _Scribbles(PackedOwn):
    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.slot(self.next_used)
        if not self.peek(at + FLAGS_AT) & WRITE and chain.readable_bytes:
            self.poke(self.peek(at, 8), 0x5A, 1)
        super().push(chain, written)


@breaks("packed.desc.no_write_readable")
class WritesReadableBuffersOfPackedRings(OnOwnRing):
    """Writes to a device-readable buffer."""

    ring_class = _Scribbles


@breaks("packed.desc.no_read_writable")
class AnswersByWhatWasThere(Right):
    """Puts into its answer what the buffer held before."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        held = [bytes(part)[0] for part in chain.writable()][:1]
        chain.write(bytes([byte ^ held[0] for byte in chain.read(4096)]) if held else b"")
        queue.push(chain)


class _Positions(PackedOwn):
    """Knows of each chain that is in flight where it begins and how many descriptors it has."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.places: dict[int, tuple[int, int]] = {}  # buffer id -> slot, count

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        taken: list[Chain] = []
        while len(taken) < limit:
            begin = int(self.real.next_avail)
            one = self.real.pop_batch(1)
            if not one:
                break
            end, size = int(self.real.next_avail), self.registers.size
            laps = (begin ^ end) >> 15
            self.places[one[0].head] = (begin & 0x7FFF, (end & 0x7FFF) - (begin & 0x7FFF) + laps * size)
            taken += one
        return taken


class _OnPositions(OnOwnRing):
    ring_class = _Positions

    def place(self, queue: Queue, chain: Chain) -> tuple[int, int]:
        ring: Any = queue.ring
        return ring.places[chain.head]  # type: ignore[no-any-return]


@breaks("packed.chain.order")
class MixesUpListsOverTheEnd(_OnPositions):
    """Takes the parts of a list before and behind the end of the ring in the wrong order."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        begin, count = self.place(queue, chain)
        before = queue.ring.size - begin
        data = [bytes(part) for part in chain.readable()]
        if before < count:
            data = [*data[before:], *data[:before]]
        chain.write(b"".join(data)[::-1])
        queue.push(chain)


@breaks("packed.chain.limit")
class LosesListsAsLongAsTheRing(_OnPositions):
    """Keeps a list that takes the whole ring, and says nothing."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        if self.place(queue, chain)[1] < queue.ring.size or queue.ring.size == 1:
            super().answer(queue, chain)


class _Again(PackedOwn):
    """Uses the next descriptor, too, when it finds nothing to do."""

    def pop_batch(self, limit: int = 64) -> Sequence[Chain]:
        taken = list(self.real.pop_batch(limit))
        if not taken and self.real.next_avail & 0x7FFF:
            position = self.next_used
            marks = MARKS if position >> 15 else 0
            self.poke(self.slot(position) + FLAGS_AT, marks)
        return taken


@breaks("packed.avail.immediate_access")
class ServesAgainWhenItIsKicked(OnOwnRing):
    """Returns a chain a second time when a kick tells of nothing new."""

    ring_class = _Again
