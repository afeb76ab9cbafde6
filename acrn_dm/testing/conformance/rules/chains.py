"""Buffers and chains (2.7.4, 2.7.5, 2.7.8): what a device reads and writes, and what it says that it wrote."""

from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import POISONS, Laid, drain, give, lay, pieces, place, take
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import split
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import DriverQueue

VARIANTS = 6  # cuts of one request
ENTRY = 16  # bytes of a descriptor
STATUS_LAST = ("blk", "i2c")  # kinds whose answer ends in a status byte


def same(bench: Bench, queue: DriverQueue, shape: Shape) -> bool:
    """Whether the queue answers the same request twice in the same way."""
    first, second = (give(bench, queue, shape) for _ in range(2))
    return first.data() == second.data() and first.written == second.written


@rule("framing.no_assumptions")
def serves_a_request_however_it_is_cut(bench: Bench) -> None:
    """2.7.4.1: header, data and status in one buffer, in single bytes, cut anywhere."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        steady, model = same(bench, queue, shape), give(bench, queue, shape)
        for seed in range(VARIANTS):
            cut = pieces(shape, seed)
            if len(cut.out) + len(cut.in_) > queue.ring.layout.size:
                continue
            laid = give(bench, queue, cut)
            assert laid.written == model.written, f"{cut} wrote {laid.written} bytes, {shape} {model.written}"
            assert not steady or laid.data() == model.data(), f"queue {queue.index}: another answer when cut as {cut}"


@rule("split.desc.no_write_readable", ring="split", over=("transport",))
def writes_to_no_readable_buffer(bench: Bench) -> None:
    """2.7.5.1: nor to what is around a buffer."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        laid = give(bench, queue, shape)
        assert not laid.readable_changed(), f"queue {queue.index}: wrote outside the writable buffers of {shape}"


@rule("split.desc.no_read_writable", ring="split")
def does_not_look_at_what_writable_buffers_hold(bench: Bench) -> None:
    """2.7.5.1: the answer does not depend on it."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        if not same(bench, queue, shape):
            continue
        first, second = (give(bench, queue, shape, poison) for poison in POISONS[:2])
        assert first.written == second.written, f"queue {queue.index}: the count depends on what the buffer held"
        n = first.written
        assert first.data()[:n] == second.data()[:n], f"queue {queue.index}: the answer depends on what the buffer held"


@rule("split.desc.no_write_table", ring="split")
def writes_to_no_descriptor(bench: Bench) -> None:
    """2.7.5.1."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        where = queue.ring.layout.parts()[0]
        laid = lay(bench, queue, shape)
        before = bench.machine.memory.read(where.gpa, where.length)
        take(bench, queue, laid, shape)
        after = bench.machine.memory.read(where.gpa, where.length)
        assert after == before, f"queue {queue.index}: the descriptor table was written to"


@rule("split.used.len_bytes_written", ring="split", over=("transport",))
def wrote_as_many_bytes_as_it_claims(bench: Bench) -> None:
    """2.7.8.2: the first *len* bytes are new, and there are no more than the chain has room for."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        written, kept = _written(bench, queue, shape)
        assert written <= shape.room, f"queue {queue.index}: claims {written} bytes of {shape.room} writable ones"
        unwritten = [at for at in kept if at < written]
        assert not unwritten, f"queue {queue.index}: claims {written} bytes, but wrote nothing at {unwritten[:8]}"


@rule("dm.len_covers_writes")
def claims_every_byte_it_wrote(bench: Bench) -> None:
    """2.7.8: a driver that bounces buffers copies *len* bytes and no more, so that the rest is lost."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        written, kept = _written(bench, queue, shape)
        status_last = bench.kind in STATUS_LAST  # a failed request writes that and nothing before it
        more = sorted(set(range(written, shape.room - status_last)) - set(kept))
        assert not more, f"queue {queue.index}: claims {written} bytes of {shape}, but wrote at {more[:8]}"


def _written(bench: Bench, queue: DriverQueue, shape: Shape) -> tuple[int, list[int]]:
    """The least count claimed for *shape*, and the places that were never written, whatever had been there."""
    rounds = [give(bench, queue, shape, poison) for poison in POISONS]
    contents = [(laid.data(), poison) for laid, poison in zip(rounds, POISONS, strict=True)]
    kept = [at for at in range(shape.room) if all(data[at] == poison for data, poison in contents)]
    return max(laid.written for laid in rounds), kept


@rule("d.vq.used_len")
def reports_nothing_written_where_nothing_is_writable(bench: Bench) -> None:
    """2.6: the used length of a chain to be read is 0."""
    driver, judged = bench.start(), 0
    for queue, shape in bench.answering(driver):
        readable = Shape(out=shape.out or (bytes(8),))
        laid = lay(bench, queue, readable)
        done = drain(bench, queue, 1)
        if len(done) == 1:  # a request without room for its answer may be dropped or cost a reset
            judged += 1
            assert done[0] == (laid.head, 0), f"queue {queue.index}: claims {done[0][1]} bytes of a readable chain"
        else:
            bench.restart(driver)
    if not judged:
        raise NotApplicable("no queue returns a chain that can only be read")


@rule("d.split.used_id", ring="split")
def returns_the_head_whatever_the_order_of_descriptors(bench: Bench) -> None:
    """2.7.8: the id is the first descriptor's index; the others are found by *next*."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        size = queue.ring.layout.size
        laid = place(bench, shape)
        count = len(laid.out) + len(laid.in_)
        if size < count:
            continue
        for base in range(0, size, max(1, size // 4)):
            order = [(base - step) % size for step in range(count)]
            _describe(queue, laid, order)
            split(queue).make_available(order[0])
            queue.ring.publish()
            done = [head for head, _ in drain(bench, queue, 1)]
            assert done == [order[0]], f"queue {queue.index}: chain {order} came back as {done}"


def _describe(queue: DriverQueue, laid: Laid, order: list[int]) -> None:
    """Write the chain into these descriptors, in this order."""
    buffers = laid.buffers
    for i, (index, (gpa, length, flags)) in enumerate(zip(order, buffers, strict=True)):
        last = i == len(order) - 1
        split(queue).write_desc(index, gpa, length, flags | (0 if last else DESC_F_NEXT), 0 if last else order[i + 1])


@rule("dm.use_after_push")
def leaves_buffers_alone_once_they_are_returned(bench: Bench) -> None:
    """They are the driver's: what it puts there stays."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        first = give(bench, queue, shape)
        first.fill(0x99)
        before = first.all_bytes()
        for _ in range(3):
            give(bench, queue, shape)
        bench.wait(lambda: False, 0.005)
        assert first.all_bytes() == before, f"queue {queue.index}: wrote to a chain after it was returned"


# Indirect descriptors


@rule("split.indirect.ignore_write_flag", ring="split", needs=("INDIRECT_DESC",))
def ignores_the_write_flag_of_an_indirect_descriptor(bench: Bench) -> None:
    """2.7.5.3.2."""
    _indirect(bench, direct=0, flag=DESC_F_WRITE)


@rule("split.indirect.direct_then_indirect", ring="split", needs=("INDIRECT_DESC",))
def serves_direct_descriptors_before_an_indirect_one(bench: Bench) -> None:
    """2.7.5.3.2."""
    _indirect(bench, direct=1)


@rule("d.split.indirect_table", ring="split", needs=("INDIRECT_DESC",))
def follows_next_in_an_indirect_table(bench: Bench) -> None:
    """2.7.5.3: it begins with entry 0 and goes on anywhere."""
    _indirect(bench, direct=0, backwards=True)


def _indirect(bench: Bench, *, direct: int, flag: int = 0, backwards: bool = False) -> None:
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        cut = pieces(shape, 1)
        steady, model = same(bench, queue, shape), give(bench, queue, shape)
        laid = place(bench, cut)
        if queue.ring.layout.size <= direct:
            continue
        _lay_indirect(queue, laid, direct, flag, backwards)
        take(bench, queue, laid, cut)
        assert laid.written == model.written, f"wrote {laid.written} bytes by a table, {model.written} without"
        assert not steady or laid.data() == model.data(), f"queue {queue.index}: another answer by an indirect table"


def _lay_indirect(queue: DriverQueue, laid: Laid, direct: int, flag: int, backwards: bool) -> None:
    """The first *direct* buffers in the ring's table, the others in one of their own."""
    buffers = laid.buffers
    direct = min(direct, len(buffers) - 1)
    rest = buffers[direct:]
    machine = laid.bench.machine
    table = machine.heap.take(ENTRY * len(rest))
    places = [0, *range(len(rest) - 1, 0, -1)] if backwards else list(range(len(rest)))
    for i, (at, (gpa, length, flags)) in enumerate(zip(places, rest, strict=True)):
        last = i == len(rest) - 1
        raw = gpa.to_bytes(8, "little") + length.to_bytes(4, "little")
        raw += (flags | (0 if last else DESC_F_NEXT)).to_bytes(2, "little")
        raw += (0 if last else places[i + 1]).to_bytes(2, "little")
        machine.memory.write(table + ENTRY * at, raw)
    for index, (gpa, length, flags) in enumerate(buffers[:direct]):
        split(queue).write_desc(index, gpa, length, flags | DESC_F_NEXT, index + 1)
    split(queue).write_desc(direct, table, ENTRY * len(rest), DESC_F_INDIRECT | flag)
    laid.head = 0
    split(queue).make_available(0)
    queue.ring.publish()
