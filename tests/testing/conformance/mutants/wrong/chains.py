"""Devices that are wrong about the chains they are given: what they write, what they say they wrote, what they keep."""

import contextlib

from acrn_dm import Chain, Queue
from tests.testing.conformance.mutants.own_ring import OnOwnRing, OwnRing
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Right

WRITE, NEXT, INDIRECT = 2, 1, 4


@breaks("dm.exception")
class DividesByZero(Right):
    """Raises ZeroDivisionError for every chain."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        print(1 // 0)


@breaks("dm.exception")
class RaisesForLongChains(Right):
    """Raises for a chain that has more to read than it expects."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        if chain.readable_bytes > 16:
            raise IndexError(chain.readable_bytes)
        super().answer(queue, chain)


@breaks("dm.exception")
class RaisesWithoutRoom(Right):
    """Raises for a chain without anything to be written."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        chain.write_at(0, b"\0")
        super().answer(queue, chain)


@breaks("dm.exception", "dm.double_push")
class PushesTwice(Right):
    """Returns every chain twice."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        super().answer(queue, chain)
        queue.push(chain)


class _TwiceRing(OwnRing):
    def publish(self) -> bool:
        count = self.real.used_idx
        wants = bool(self.real.publish())
        if wants or count:
            last = self.memory.read(self.element_at(count - 1), 8)
            self.memory.write(self.element_at(count), last)
            self.poke(self.used_idx_at, (count + 1) & 0xFFFF)
        return wants


@breaks("dm.double_push", "d.split.used_idx_free_running", "d.split.used_id")
class PushesTwiceBehindTheRing(OnOwnRing):
    """Shows its last used element a second time, without the ring's noticing."""

    ring_class = _TwiceRing


@breaks("dm.exception", "split.used.len_bytes_written", "d.vq.used_len")
class ClaimsMoreThanThereIs(Right):
    """Claims 100,000 written bytes."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        queue.push(chain, 100_000)


class _BoastingRing(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.element_at(self.real.used_idx)
        self.real.push(chain, written)
        self.poke(at + 4, 100_000, 4)


@breaks("split.used.len_bytes_written", "d.vq.used_len")
class ClaimsMoreBehindTheRing(OnOwnRing):
    """Writes 100,000 into the length of each used element, without the ring's noticing."""

    ring_class = _BoastingRing


@breaks("split.used.len_bytes_written", "d.vq.used_len")
class ClaimsWhatItNeverWrote(Right):
    """Claims all writable bytes and has written none."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        queue.push(chain, chain.writable_bytes)


@breaks("split.used.len_bytes_written", "d.vq.used_len")
class WritesTheEndAndClaimsAll(Right):
    """Writes the last byte only, and claims the gap before it."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        if chain.writable_bytes:
            chain.write_at(chain.writable_bytes - 1, b"\0")
        queue.push(chain)


@breaks("dm.exception")
class UsesAChainAfterPush(Right):
    """Reads a chain that it has returned."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        super().answer(queue, chain)
        chain.read(1)


class _LateRing(OwnRing):
    """Remembers where the last chain's buffer is, and writes there when nobody gave it to it any more."""

    last = 0

    def push(self, chain: Chain, written: int | None = None) -> None:
        before, self.last = self.last, self.first_writable(chain.head)
        if before:
            self.poke(before, 0x55, 1)
        self.real.push(chain, written)

    def first_writable(self, index: int) -> int:
        """Address of a chain's first buffer to be written; 0 without one."""
        while True:
            at = self.registers.desc + 16 * index
            flags = self.peek(at + 12)
            if flags & (WRITE | INDIRECT):
                return 0 if flags & INDIRECT else self.peek(at, 8)
            if not flags & NEXT:
                return 0
            index = self.peek(at + 14)


@breaks("dm.use_after_push")
class WritesAfterPush(OnOwnRing):
    """Writes into a buffer of the chain that it returned before."""

    ring_class = _LateRing


@breaks("dm.lost_chain")
class LosesEveryChain(Right):
    """Takes chains and never returns one."""

    def handle_queue(self, queue: Queue) -> None:
        queue.pop_batch()


@breaks("dm.lost_some")
class LosesTheSecondOfABatch(Right):
    """Takes a batch and returns the first chain only."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch()[:1]:
            self.answer(queue, chain)


class _ScribblingRing(OwnRing):
    """Writes to the first buffer of each chain that is pushed, whoever may read or write it."""

    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.registers.desc + 16 * chain.head
        if not self.peek(at + 12) & WRITE and self.peek(at + 8, 4):
            self.poke(self.peek(at, 8), 0x5A, 1)
        self.real.push(chain, written)


@breaks("split.desc.no_write_readable")
class WritesWhatItMayOnlyRead(OnOwnRing):
    """Writes to a device-readable buffer."""

    ring_class = _ScribblingRing


class _TableRing(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.registers.desc + 16 * chain.head
        self.poke(at + 12, self.peek(at + 12) | 0x8000)
        self.real.push(chain, written)


@breaks("split.desc.no_write_table")
class WritesTheDescriptorTable(OnOwnRing):
    """Sets a flag in the descriptor of a chain it returns."""

    ring_class = _TableRing


class _FirstIdRing(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.element_at(self.real.used_idx)
        self.real.push(chain, written)
        self.poke(at, self.real.used_idx % self.registers.size, 4)


@breaks("d.split.used_id", "dm.double_push", "dm.lost_some")
class ReturnsAnotherHead(OnOwnRing):
    """Counts through the used elements' ids, instead of returning the chains' heads."""

    ring_class = _FirstIdRing


class _StuckIndexRing(OwnRing):
    def publish(self) -> bool:
        wants = bool(self.real.publish())
        self.poke(self.used_idx_at, self.real.used_idx % self.registers.size)
        return wants


@breaks("d.split.used_idx_free_running")
class WrapsTheUsedIndexAtTheSize(OnOwnRing):
    """Counts the used index modulo the queue's size."""

    ring_class = _StuckIndexRing


@breaks("dm.exception")
class AnswersInAnotherQueue(Right):
    """Returns the chains of its last queue in the first one."""

    def answer(self, queue: Queue, chain: Chain) -> None:
        self.queues[0].push(chain)


@breaks("d.split.inorder_skipped", "d.packed.inorder_batch")  # for the driver it is one batch, up to the last one
class OffersOrderAndReturnsBackwards(Right):
    """Says that it keeps the order of its chains, and returns each batch the last one first."""

    in_order = True

    def handle_queue(self, queue: Queue) -> None:
        for chain in reversed(queue.pop_batch()):
            self.answer(queue, chain)


@breaks("status.needs_reset.set")
class SwallowsTheDriversFault(Right):
    """Ignores a malformed ring, and never sets NEEDS_RESET."""

    def handle_queue(self, queue: Queue) -> None:
        with contextlib.suppress(Exception):
            super().handle_queue(queue)

    def fail(self, error: Exception) -> None:
        """Nobody is told."""


class _DeafRing(OwnRing):
    """Never breaks, whatever the driver does."""

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        with contextlib.suppress(Exception):
            return list(self.real.pop_batch(limit))
        return []

    def enable_kicks(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.real.enable_kicks())
        return False

    def publish(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.real.publish())
        return False

    def disable_kicks(self) -> None:
        with contextlib.suppress(Exception):
            self.real.disable_kicks()

    def waiting(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.real.waiting())
        return False


@breaks("status.needs_reset.set")
class NeverAsksForAReset(OnOwnRing):
    """Goes on over any malformed ring as if it was empty."""

    ring_class = _DeafRing


class _EagerRing(OwnRing):
    """Takes a descriptor's flags for nothing: returns chains in whatever state, one by one, with one byte more."""

    def push(self, chain: Chain, written: int | None = None) -> None:
        count = chain.written if written is None else written
        at = self.element_at(self.real.used_idx)
        self.real.push(chain, written)
        self.poke(at + 4, count + 1, 4)


@breaks("split.used.len_bytes_written", "d.vq.used_len")
class ClaimsOneByteMore(OnOwnRing):
    """Claims one byte more than it wrote: off by one, where nothing is written, too."""

    ring_class = _EagerRing
