"""What guests did to other device models' rings (rows 1 to 39), as things that a driver does to any queue of ours.

A request is a header of 16 bytes and room for an answer of 21: a block device takes it for GET_ID. ``Trial`` is what a
row is done with; ``ROWS`` says what has to come of it, in each ring format. A row that is missing concerns no single
queue, or not its ring; ``ELSEWHERE`` names the tests that keep it away.
"""

import itertools
import struct
from collections.abc import Callable, Sequence

import attrs

from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.features import PACKED
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.testing.driver import DriverQueue

HEADER, ANSWER = struct.pack("<IIQ", 8, 0, 0), 21
RAM, END, ABOVE = 0x10_0000, 16 << 20, 1 << 40  # in RAM; where it ends; far behind it
RESET, SERVED, NOTHING = "asks for a reset", "is served", "takes nothing"
BOTH, SPLIT_ONLY, PACKED_ONLY = (False, True), (False,), (True,)
Descriptor = tuple[int, int, int, int]
Buffers = Sequence[tuple[int, int]]


@attrs.define(eq=False)
class Trial:
    """One queue in a driver's hands. ``sent`` are the chains that have to come back, for which *wait* waits.
    ``interrupts`` came before the first of them: who serves the queue elsewhere may find it before there is a kick.
    """

    queue: DriverQueue
    wait: Callable[[Callable[[], bool]], bool]
    sent: list[int] = attrs.field(factory=list)
    interrupts: int = 0

    def __attrs_post_init__(self) -> None:
        self.interrupts = self.queue.driver.queue_interrupts(0)

    @property
    def packed(self) -> bool:
        """Whether the ring is."""
        return bool(self.queue.driver.features & PACKED)

    @property
    def split_ring(self) -> DriverRing:
        """The ring, where it is split."""
        assert isinstance(self.queue.ring, DriverRing)
        return self.queue.ring

    @property
    def packed_ring(self) -> PackedDriverRing:
        """The ring, where it is packed."""
        assert isinstance(self.queue.ring, PackedDriverRing)
        return self.queue.ring

    @property
    def size(self) -> int:
        """Its number of descriptors."""
        return self.queue.ring.layout.size

    def put(self, data: bytes) -> int:
        """Place *data* in guest memory."""
        gpa = self.queue.driver.machine.heap.take(len(data) + 16)
        self.queue.driver.machine.memory.write(gpa, data)
        return gpa

    def request(self, *cuts: int) -> tuple[Buffers, Buffers]:
        """The buffers of a request, the header cut at *cuts*."""
        at, room = self.put(HEADER), self.put(bytes(ANSWER))
        ends = [0, *cuts, len(HEADER)]
        out = [(at + a, b - a) for a, b in itertools.pairwise(ends)]
        return out, [(room, ANSWER)]

    def send(self, out: Buffers, in_: Buffers, table: int | None = None) -> None:
        """Make a chain available that has to come back."""
        if not self.sent:
            self.interrupts = self.queue.driver.queue_interrupts(0)
        self.sent.append(self.queue.ring.add_chain(out, in_, table))
        self.queue.ring.publish()

    def good(self, count: int = 1, *, indirect: bool = False) -> None:
        """So many requests that are in order."""
        for _ in range(count):
            out, in_ = self.request(4)
            self.send(out, in_, self.put(bytes(16 * (len(out) + len(in_)))) if indirect else None)

    def poke(self, *descriptors: Descriptor, head: int = 0) -> None:
        """Raw (gpa, length, flags, next or id), made available."""
        self.queue.ring.poke(descriptors, head)

    def table(self, *entries: Descriptor) -> int:
        """An indirect table of (gpa, length, flags, next), as a ring of this format has it."""
        form = "<QIHH"
        swap = [(gpa, n, last, flags) if self.packed else (gpa, n, flags, last) for gpa, n, flags, last in entries]
        return self.put(b"".join(struct.pack(form, *entry) for entry in swap))


Do = Callable[[Trial], object]


@attrs.frozen
class Row:
    """One fault of another device model, in words, and what has to come of it here."""

    number: int
    name: str
    do: Do
    outcome: str
    formats: Sequence[bool] = BOTH  # packed or not
    indirect: bool = True  # whether INDIRECT_DESC is negotiated

    def __str__(self) -> str:
        return f"row_{self.number:02d}-{self.name.replace(' ', '_')}"


def raw(*descriptors: Descriptor, head: int = 0) -> Do:
    """Make these available."""
    return lambda t: t.poke(*descriptors, head=head)


def loop(length: int, *nexts: int) -> Do:
    """A chain without an end: by the *nexts* of split descriptors, by NEXT in all of a ring's packed ones."""

    def do(t: Trial) -> None:
        packed = [(RAM, length, NEXT, 0)] * t.size
        t.poke(*(packed if t.packed else [(RAM, length, NEXT, n) for n in nexts]))

    return do


def in_table(*entries: Descriptor, length: int | None = None, shift: int = 0) -> Do:
    """A chain that is a table of *entries*, which says that it is *length* bytes long."""

    def do(t: Trial) -> None:
        at = t.table(*entries)
        t.poke((at + shift, 16 * len(entries) if length is None else length, INDIRECT, 0))

    return do


def looping_table(t: Trial) -> None:
    """A table whose first entry is its own next."""
    t.poke((t.table(*[(RAM, 1, NEXT, 0)] * 64), 16 * 64, INDIRECT, 0))


def table_without_an_order(t: Trial) -> None:
    """NEXT in a packed ring's table means nothing (2.8.7): each entry is passed once."""
    (header, length), (answer, room) = (part[0] for part in t.request())
    at = t.table((header, length, NEXT, 0), (answer, room, WRITE | NEXT, 0))
    t.poke((at, 32, INDIRECT, 0), head=3)
    t.sent.append(3)


def jump(by: int) -> Do:
    """Move the available index by *by*, whatever is there."""
    return lambda t: t.split_ring.set_avail_idx(t.split_ring.published_avail + by)


def other_lap(t: Trial) -> None:
    """Descriptors that are marked as a later lap's, of which the ring has seen none."""
    for slot in range(t.size):
        t.packed_ring.write_desc(slot, RAM, 16, 0, 1 << 15)


def invalid_after_traffic(t: Trial) -> None:
    """Some chains, and then an index behind them, or marks of the lap before."""
    t.good(3)
    t.queue.kick(force=True)
    assert t.wait(lambda: t.queue.ring.returned() == 3)
    t.queue.ring.used()
    t.sent.clear()
    if t.packed:
        t.packed_ring.set_flags(0, 1 << 7)
    else:
        t.split_ring.set_avail_idx(2)


def same_again(t: Trial) -> None:
    """One chain, made available as often as there are descriptors and more, none of which was returned."""
    for _ in range(t.size):
        if t.packed:
            t.packed_ring.poke([(RAM, 1, 0, 0)], head=5)
        else:
            t.split_ring.write_desc(0, RAM, 1)
            t.split_ring.make_available(0)
    t.queue.ring.publish()


def empty_buffers(*places: int) -> Do:
    """A request with buffers of length 0 that are nowhere, at these places among its own."""

    def do(t: Trial) -> None:
        out, in_ = t.request(8)
        mixed = list(out)
        for place in places:
            mixed.insert(min(place, len(mixed)), (ABOVE, 0))
        t.send(mixed, [*in_, *([(ABOVE, 0)] if len(places) > 2 else [])])

    return do


def odd_table(t: Trial) -> None:
    """A table at an odd address."""
    out, in_ = t.request(4, 9)
    t.send(out, in_, t.put(bytes(16 * 5)) + 1)


def table_then_list(t: Trial) -> None:
    """Long tables and short lists in turn."""
    for cuts in ((), range(1, 16), (8,), range(1, 12)):
        out, in_ = t.request(*cuts)
        t.send(out, in_, t.put(bytes(16 * (len(out) + len(in_)))) if len(out) > 2 else None)


def bad_third_of_a_batch(t: Trial) -> None:
    """Four chains of which the third is nowhere: those before it count."""
    t.good(2)
    t.queue.ring.add_chain([(ABOVE, 4)])
    before = list(t.sent)
    t.good()
    t.sent = before


def whole_ring(t: Trial) -> None:
    """As many requests of two descriptors as there is room for, shown at once."""
    for _ in range(t.size // 2):
        out, in_ = t.request()
        t.sent.append(t.queue.ring.add_chain(out, in_))
    t.queue.ring.publish()


def lists(t: Trial) -> None:
    """Lists of several descriptors, whose first ids say nothing where rings are packed."""
    for n in (3, 5, 2):
        out, in_ = t.request(*range(1, n))
        if not t.packed:
            t.send(out, in_)
            continue
        buffers = [*((gpa, length, NEXT) for gpa, length in out), *((gpa, length, WRITE) for gpa, length in in_)]
        t.poke(*((*buffer, 0x5500 + i) for i, buffer in enumerate(buffers)), head=n)
        t.sent.append(n)


SAME_AGAIN = Row(6, "same head again", same_again, RESET)  # where what is taken is kept
LAST = END - 16
ROWS: Sequence[Row] = (
    Row(1, "circular", loop(16, 1, 0), RESET),
    Row(2, "loop of length 0", loop(0, 0), RESET),
    Row(3, "loop in a table", looping_table, RESET, SPLIT_ONLY),
    Row(3, "next in a table", table_without_an_order, SERVED, PACKED_ONLY),
    Row(4, "head outside", raw((RAM, 16, 0, 0), head=0xFFFF), RESET, SPLIT_ONLY),
    Row(4, "next outside", raw((RAM, 16, NEXT, 0xFFFF)), RESET),
    Row(5, "jump by size and one", lambda t: jump(t.size + 1)(t), RESET, SPLIT_ONLY),
    Row(5, "jump by half", jump(0x8000), RESET, SPLIT_ONLY),
    Row(5, "jump backwards", jump(-1), RESET, SPLIT_ONLY),
    Row(5, "another lap", other_lap, NOTHING, PACKED_ONLY),
    Row(8, "invalid after traffic", invalid_after_traffic, RESET, SPLIT_ONLY),
    Row(8, "old lap after traffic", invalid_after_traffic, NOTHING, PACKED_ONLY),
    Row(9, "empty first", empty_buffers(0), SERVED),
    Row(9, "empty in the middle", empty_buffers(1), SERVED),
    Row(10, "empty everywhere", empty_buffers(0, 2, 9), SERVED),
    Row(12, "table of 65536", in_table((RAM, 1, 0, 0), length=16 << 16), RESET, PACKED_ONLY),
    Row(12, "table of all memory", in_table((RAM, 1, 0, 0), length=0xFFFF_FFF0), RESET),
    *(Row(13, f"table of {n} bytes", in_table((RAM, 1, 0, 0), length=n), RESET) for n in (0, 8, 15, 17)),
    Row(14, "table not negotiated", in_table((RAM, 1, 0, 0)), RESET, indirect=False),
    Row(15, "table at an odd address", odd_table, SERVED),
    Row(16, "tables and lists in turn", table_then_list, SERVED),
    Row(18, "over the end", raw((LAST, 17, 0, 0)), RESET),
    Row(18, "in the hole", raw((ABOVE, 1, WRITE, 0)), RESET),
    Row(20, "address wraps", raw((2**64 - 1, 2, 0, 0)), RESET),
    Row(21, "sum of lengths", raw(*[(RAM, 2**32 - 1, NEXT, n) for n in (1, 2)], (RAM, 2**32 - 1, 0, 0)), RESET),
    Row(22, "third of a batch", bad_third_of_a_batch, RESET),
    Row(27, "one behind the end", raw((END - 8, 9, WRITE, 0)), RESET),
    Row(28, "readable last", raw((RAM, 4, WRITE | NEXT, 1), (RAM, 4, 0, 0)), RESET),
    Row(28, "readable last in a table", in_table((RAM, 4, WRITE | NEXT, 1), (RAM, 4, 0, 0)), RESET),
    Row(32, "table and next", raw((RAM, 16, INDIRECT | NEXT, 1), (RAM, 16, 0, 0)), RESET),
    Row(33, "whole ring", whole_ring, SERVED),
    Row(34, "lists", lists, SERVED),
    Row(37, "full ring", whole_ring, SERVED),
)
