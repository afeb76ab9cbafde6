"""Devices that are wrong about the order in which chains come back (virtio 2.7.9)."""

from typing import Any

from acrn_dm import Chain, Queue
from tests.testing.conformance.mutants.own_ring import OnOwnRing, OwnRing
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Later
from tests.testing.conformance.mutants.wrong.packed import FLAGS_AT, ID_AT, LEN_AT, PackedOwn

IN_ORDER = 1 << 35


@breaks("rsvd.in_order")
class AnswersTheLastFirst(Later):
    """Returns what it has backwards, one after the other, and offers IN_ORDER."""

    in_order = True

    def answer_all(self) -> None:
        if self.held and not self.held[-1][0].closed:
            queue, chain = self.held.pop()
            self.answer(queue, chain)
            queue.flush()
            queue.loop.call_later(0.002, self.answer_all)


class _Batches(OwnRing):
    """Writes one element for all chains that were pushed, with the head of the last one, where the first one's is."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heads: list[tuple[int, int]] = []
        self.begin = self.real.used_idx

    def push(self, chain: Chain, written: int | None = None) -> None:
        if not self.heads:
            self.begin = self.real.used_idx
        self.heads.append((chain.head, chain.written if written is None else written))
        self.real.push(chain, written)

    def publish(self) -> bool:
        if self.features & IN_ORDER and len(self.heads) > 1:
            self.skip(self.begin, *self.heads[-1])
        count, self.heads = len(self.heads), []
        return self.show(count)

    def skip(self, begin: int, head: int, written: int) -> None:
        for at in range(begin, begin + len(self.heads)):
            self.poke(self.element_at(at), 0xDEAD, 8)
        self.poke(self.element_at(begin), head | written << 32, 8)

    def show(self, count: int) -> bool:
        return bool(self.real.publish())


class InOrder(OnOwnRing):
    """Returns batches by one entry, as it may."""

    in_order = True
    ring_class = _Batches

    def answer(self, queue: Queue, chain: Chain) -> None:
        chain.write(chain.read(4096)[::-1].ljust(chain.writable_bytes, b"."))
        queue.push(chain)


class _CountsBatches(_Batches):
    def show(self, count: int) -> bool:
        wanted = super().show(count)
        if self.features & IN_ORDER and count > 1:
            self.poke(self.used_idx_at, (self.begin + 1) & 0xFFFF)
        return wanted


@breaks("d.split.inorder_batch", "rsvd.in_order")
class CountsABatchAsOne(InOrder):
    """Moves the used index by one for a batch."""

    ring_class = _CountsBatches


@breaks("d.split.inorder_skipped")
class SkipsWhatItDidNotFill(InOrder):
    """Writes one element for a batch of chains that it has not filled to the end."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        chain.write(chain.read(4096)[::-1][:1])
        queue.push(chain)


class _PackedBatches(PackedOwn):
    """Writes one used descriptor for all chains that were pushed, with the id and the length of the last one, where the
    first one's is.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.before: list[tuple[int, int]] = []  # slots and their flags
        self.last = (0, 0)

    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.slot(self.next_used)
        self.before.append((at, self.peek(at + FLAGS_AT)))
        self.last = (chain.head, chain.written if written is None else written)
        super().push(chain, written)

    def publish(self) -> bool:
        if self.features & IN_ORDER and len(self.before) > 1:
            for at, flags in self.before[1:]:
                self.poke(at + FLAGS_AT, flags)
            self.say(*self.last)
        self.before = []
        return super().publish()

    def say(self, buffer_id: int, written: int) -> None:
        first = self.pushed[0]
        self.poke(first + ID_AT, buffer_id)
        self.poke(first + LEN_AT, written, 4)


class PackedInOrder(InOrder):
    """Returns batches by one used descriptor, as it may."""

    ring_class = _PackedBatches


class _NamesTheFirst(_PackedBatches):
    def say(self, buffer_id: int, written: int) -> None:
        """Leave what the first chain's push has written."""


@breaks("d.packed.inorder_batch", "rsvd.in_order")
class NamesTheFirstChainOfABatch(PackedInOrder):
    """Has one used descriptor for a batch, with the buffer id of its first chain."""

    ring_class = _NamesTheFirst


class _AtTheLast(_PackedBatches):
    def publish(self) -> bool:
        batch, shown = list(self.pushed), bool(self.features & IN_ORDER and len(self.before) > 1)
        marks = self.before[0][1] if self.before else 0
        wanted = super().publish()
        if shown:
            used = self.peek(batch[0] + FLAGS_AT)
            self.poke(batch[0] + FLAGS_AT, marks)
            self.poke(batch[-1] + FLAGS_AT, used)
        return wanted


@breaks("d.packed.inorder_batch", "rsvd.in_order")
class WritesABatchWhereTheLastChainIs(PackedInOrder):
    """Has one used descriptor for a batch, in the place of its last chain."""

    ring_class = _AtTheLast
