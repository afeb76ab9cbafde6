"""Chains that come back in the order in which they went (IN_ORDER, 2.7.9)."""

import struct

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.probes import BLK_GET_ID, Shape
from acrn_dm.testing.conformance.rings import split
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import POISON, Completion, DriverQueue

NEEDS = ("IN_ORDER",)
BLK_FLUSH = Shape(out=(struct.pack("<IIQ", 4, 0, 0),), in_=(1,))  # slow, where GET_ID is answered at once
CHAINS = 12


def _mixed(bench: Bench, queue: DriverQueue) -> list[Shape]:
    """Chains that a device may well be done with in another order: slow ones of disks before fast ones, else long ones
    before short ones.
    """
    shape = bench.answers[queue.index]
    longer = Shape(out=shape.out, in_=tuple(4 * length for length in shape.in_))
    shapes = (BLK_FLUSH, BLK_GET_ID) if bench.kind == "blk" else (longer, shape)
    room = queue.ring.free_descriptors // max(len(one.out) + len(one.in_) for one in shapes)
    return [shapes[n % 2] for n in range(min(CHAINS, room))]


def _send(bench: Bench, queue: DriverQueue) -> tuple[list[int], list[Completion]]:
    """Tokens of the chains sent at once, and what came back."""
    sent = [queue.send(shape.out, shape.in_) for shape in _mixed(bench, queue)]
    queue.kick()
    return sent, bench.collect(queue, len(sent))


@rule("rsvd.in_order", needs=NEEDS, over=("pairs",))
def chains_come_back_in_the_order_in_which_they_went(bench: Bench) -> None:
    """6.1."""
    for queue, _ in bench.answering(bench.start()):
        for _ in range(4):  # around the table
            sent, done = _send(bench, queue)
            came = [one.token for one in done]
            assert came == sent, f"queue {queue.index}: sent {sent}, and got back {came}"


@rule("d.split.inorder_batch", needs=NEEDS, ring="split")
def used_index_counts_the_chains_of_a_batch(bench: Bench) -> None:
    """2.7.9: one element may stand for several chains, at the place of the first of them."""
    for queue, _ in bench.answering(bench.start()):
        for _ in range(4):
            before = split(queue).used_idx()
            sent, done = _send(bench, queue)
            moved = (split(queue).used_idx() - before) & 0xFFFF
            assert moved == len(sent), f"queue {queue.index}: the used index goes on by {moved} for {len(sent)} chains"
            assert len(done) == len(sent), f"queue {queue.index}: {len(done)} of {len(sent)} chains come back"


@rule("d.packed.inorder_batch", needs=NEEDS, ring="packed")
def used_descriptor_of_a_batch_is_the_last_chain_s_in_the_first_one_s_place(bench: Bench) -> None:
    """2.8.9: its id says how far the batch goes, and so where the next used descriptor is going to be; those before
    the last one are filled to the end.
    """
    for queue, _ in bench.answering(bench.start()):
        for _ in range(4):
            sent, done = _send(bench, queue)
            came = [one.token for one in done]
            assert came == sent, f"queue {queue.index}: the used descriptors stand for {came} of {sent}"
            _expect_filled(queue, done)


@rule("d.split.inorder_skipped", needs=NEEDS, ring="split")
def chains_without_an_element_are_filled_to_the_end(bench: Bench) -> None:
    """2.7.9: nothing says how long they are, so they are all that long."""
    for queue, _ in bench.answering(bench.start()):
        _, done = _send(bench, queue)
        _expect_filled(queue, done)


def _expect_filled(queue: DriverQueue, done: list[Completion]) -> None:
    for one in done:
        if len(one.data) >= 4 and one.written == len(one.data):
            rest = one.data[-4:]
            assert rest != bytes([POISON]) * 4, f"queue {queue.index}: a chain counts as full and is not"
