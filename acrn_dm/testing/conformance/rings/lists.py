"""Lists of descriptors and indirect tables of packed rings (2.8.5 to 2.8.7)."""

from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.ring.packed.layout import PACKED_DESC
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import Laid, drain, give, lay, pieces, place, take
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import packed
from acrn_dm.testing.conformance.rings.places import sized
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.conformance.rules.chains import same
from acrn_dm.testing.driver import NEEDS_RESET, DriverQueue

TABLE_ID, TABLE_FLAGS = 0xBEEF, DESC_F_NEXT | 1 << 7 | 1 << 15  # mean nothing in a table


@rule("packed.chain.order", ring="packed")
def takes_a_list_in_its_order_over_the_end_of_the_ring(bench: Bench) -> None:
    """2.8.18: the same answer wherever the list begins."""
    judged = 0
    for queue, shape in sized(bench, 5, 7, 11):
        whole, cut = pieces(shape, 0), pieces(shape, 1)
        if len(cut.out) + len(cut.in_) > queue.ring.layout.size:
            continue
        steady, model = same(bench, queue, whole), give(bench, queue, whole)  # of one buffer to read, wherever it is
        for _ in range(queue.ring.layout.size):
            laid = give(bench, queue, cut)
            assert laid.written == model.written, f"wrote {laid.written} bytes of a list, {model.written} without"
            assert not steady or laid.data() == model.data(), f"queue {queue.index}: another answer by a list"
        judged += 1
    if not judged:
        raise NotApplicable("no queue has room for a list")


@rule("d.packed.one_used", ring="packed")
def uses_one_descriptor_of_a_list_and_leaves_the_others(bench: Bench) -> None:
    """2.8.6: the next chain's used descriptor stands behind the whole list."""
    driver, judged = bench.start(), 0
    for queue, shape in bench.answering(driver):
        cut, ring = pieces(shape, 1), packed(queue)
        count = len(cut.out) + len(cut.in_)
        if count < 2 or 2 * count > ring.layout.size:
            continue
        begin = ring.last_used
        laid = [lay(bench, queue, cut) for _ in range(2)]
        before = [ring.desc(begin + i) for i in range(1, count)]
        heads = [head for head, _ in drain(bench, queue, 2)]
        assert sorted(heads) == sorted(it.head for it in laid), f"queue {queue.index}: sent two lists, got back {heads}"
        after = [ring.desc(begin + i) for i in range(1, count)]
        assert after == before, f"queue {queue.index}: more than one descriptor of a list was written to"
        judged += 1
    if not judged:
        raise NotApplicable("no queue returns a chain of several buffers by itself")


@rule("packed.chain.limit", ring="packed")
def list_as_long_as_the_ring_costs_a_reset_at_most(bench: Bench) -> None:
    """2.8.18: a device may limit lists; then it says so, and works again."""
    for queue, shape in sized(bench, 8, 4):
        cut = _cut_to(shape, queue.ring.layout.size)
        if cut is None:
            continue
        laid = lay(bench, queue, cut)
        done = drain(bench, queue, 1)
        refused = not done and bool(queue.driver.status & NEEDS_RESET)
        assert refused or [head for head, _ in done] == [laid.head], f"queue {queue.index}: a list came back as {done}"
        if refused:
            bench.restart(queue.driver)
            bench.exchange(queue.driver.queue(queue.index), shape)
            return  # the other rings went with their driver
        bench.exchange(queue, shape)


def _cut_to(shape: Shape, count: int) -> Shape | None:
    """The same bytes in so many buffers; None where there are too few bytes."""
    out, room = b"".join(shape.out), shape.room
    n_out = min(len(out), count - bool(room))
    n_in = min(room, count - n_out)
    if n_out + n_in != count:
        return None
    ends = (*(out[i : i + 1] for i in range(n_out - 1)), out[n_out - 1 :]) if n_out else ()
    return Shape(out=ends, in_=(*[1] * (n_in - 1), room - n_in + 1) if n_in else ())


@rule("d.packed.indirect_seq", ring="packed", needs=("INDIRECT_DESC",))
def reads_an_indirect_table_in_sequence(bench: Bench) -> None:
    """2.8.7: ids and flags in there mean nothing, but for WRITE."""
    _indirect(bench, flags=TABLE_FLAGS)


@rule("d.packed.indirect_write_ign", ring="packed", needs=("INDIRECT_DESC",))
def ignores_the_write_flag_of_what_refers_to_a_table(bench: Bench) -> None:
    """2.8.7."""
    _indirect(bench, referring=DESC_F_WRITE)


@rule("d.packed.mixed", ring="packed", needs=("INDIRECT_DESC",))
def serves_tables_and_lists_in_turn(bench: Bench) -> None:
    """2.8.5: each chain is one or the other."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        cut = pieces(shape, 1)
        for _ in range(3):
            bench.exchange(queue, shape, indirect=True)
            if len(cut.out) + len(cut.in_) <= queue.ring.layout.size:
                bench.exchange(queue, cut)


def _indirect(bench: Bench, *, flags: int = 0, referring: int = 0) -> None:
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        cut = pieces(shape, 1)
        steady, model = same(bench, queue, shape), give(bench, queue, shape)
        laid = place(bench, cut)
        _lay_table(queue, laid, flags, referring)
        take(bench, queue, laid, cut)
        assert laid.written == model.written, f"wrote {laid.written} bytes by a table, {model.written} without"
        assert not steady or laid.data() == model.data(), f"queue {queue.index}: another answer by an indirect table"


def _lay_table(queue: DriverQueue, laid: Laid, flags: int, referring: int) -> None:
    """All buffers in a table, with *flags* in its entries and in the descriptor that refers to it."""
    machine, size = laid.bench.machine, PACKED_DESC.size
    table = machine.heap.take(size * len(laid.buffers))
    for i, (gpa, length, own) in enumerate(laid.buffers):
        machine.memory.write(table + size * i, PACKED_DESC.pack(gpa, length, TABLE_ID + i, own | flags))
    laid.head = 1
    packed(queue).poke([(table, size * len(laid.buffers), DESC_F_INDIRECT | referring, 0)], laid.head)
