"""Descriptors that a device has used (2.8.1, 2.8.3, 2.8.4), and buffer ids (2.8.6)."""

from acrn_dm.ring.layout import DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.chain import Laid, drain, pieces, place
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rings import packed
from acrn_dm.testing.conformance.rings.places import sized
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import DriverQueue

AVAIL, USED = 1 << 7, 1 << 15
IDS = (0xFFFF, 0x8000, 0x1234, 0, 0x7FFF)


def raw(laid: Laid, *ids: int) -> list[tuple[int, int, int, int]]:
    """The buffers as a list that NEXT links, with *ids*."""
    linked = [flags | DESC_F_NEXT for _, _, flags in laid.buffers[:-1]] + [laid.buffers[-1][2]]
    return [(gpa, n, flags, i) for (gpa, n, _), flags, i in zip(laid.buffers, linked, ids, strict=True)]


@rule("d.packed.used_flags", ring="packed")
def marks_used_descriptors_with_its_wrap_counter(bench: Bench) -> None:
    """2.8.1: AVAIL and USED are both the counter, 1 the first time round, 0 the second, 1 the third."""
    for queue, shape in sized(bench, 3, 4):
        ring = packed(queue)
        while ring.last_used < 3 * ring.layout.size:
            at = ring.last_used
            expected = 0 if at // ring.layout.size % 2 else AVAIL | USED
            bench.exchange(queue, shape)
            flags = ring.desc(at)[3]
            assert flags & (AVAIL | USED) == expected, f"queue {queue.index}: used descriptor {at} has flags {flags:#x}"


@rule("d.packed.used_write_flag", ring="packed")
def says_whether_anything_was_written(bench: Bench) -> None:
    """2.8.3: WRITE in a used descriptor; a chain that can only be read has none, one that was filled in has it."""
    driver, judged = bench.start(), 0
    for queue, shape in bench.answering(driver):
        for wanted in {shape, Shape(out=shape.out or (bytes(8),))}:
            ring, laid = packed(queue), place(bench, wanted)
            if len(laid.buffers) > ring.layout.size:
                continue
            at = ring.last_used
            laid.head = ring.add_chain(laid.out, laid.in_)
            ring.publish()
            if len(drain(bench, queue, 1)) != 1:  # a request without room for its answer may be dropped
                bench.restart(driver)
                break
            wrote, says = _written(laid), bool(ring.desc(at)[3] & DESC_F_WRITE)
            assert wrote or not says or wanted.in_, f"queue {queue.index}: WRITE for a chain that can only be read"
            assert says or not wrote, f"queue {queue.index}: no WRITE for a chain with bytes written"
            judged += 1
    if not judged:
        raise NotApplicable("no queue has room for a request")


def _written(laid: Laid) -> bool:
    return laid.data() != b"".join(b.before for b in laid.writable)


@rule("d.packed.id_any", ring="packed")
def returns_whatever_buffer_id_it_got(bench: Bench) -> None:
    """2.8: any 16 bits, at any descriptor."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        for buffer_id in IDS:
            _exchange(bench, queue, shape, [buffer_id] * (len(shape.out) + len(shape.in_)))


@rule("d.packed.id_last", ring="packed")
def takes_the_buffer_id_of_the_last_descriptor(bench: Bench) -> None:
    """2.8.6: the others may say anything."""
    driver, judged = bench.start(), 0
    for queue, shape in bench.answering(driver):
        cut = pieces(shape, 1)
        count = len(cut.out) + len(cut.in_)
        if count > 1:
            judged += _exchange(bench, queue, cut, [0x55AA + i for i in range(count - 1)] + [7])
    if not judged:
        raise NotApplicable("no queue returns a chain of several buffers by itself")


def _exchange(bench: Bench, queue: DriverQueue, shape: Shape, ids: list[int]) -> bool:
    """One chain whose descriptors have *ids*; whether the ring has room for it. Raises AssertionError unless it comes
    back under the last one.
    """
    if len(ids) > queue.ring.layout.size:
        return False
    packed(queue).poke(raw(place(bench, shape), *ids), ids[-1])
    heads = [head for head, _ in drain(bench, queue, 1)]
    assert heads == [ids[-1]], f"queue {queue.index}: buffer ids {ids} came back as {heads}"
    return True
