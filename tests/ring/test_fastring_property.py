"""acrn_dm._fastring against the models, byte for byte: the same driver drives both, each in a RAM of its own.

After every step the two RAMs are equal, and so was what the step returned or blamed. For each format one machine has a
driver that behaves, another one a driver that also pokes at any field of the rings.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from acrn_dm._fastring import Chain, MemoryMap
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from acrn_dm.ring.model import ModelChain, ModelMemory
from acrn_dm.ring.packed.layout import DESC_F_AVAIL, DESC_F_USED
from tests.ring.formats import PACKED_RINGS, SPLIT, Format

PAGE = 0x1000
BASES = (0, PAGE, 0x1_0000_0000, 2**64 - PAGE)  # touching, after a hole, and the last page of all
RING = 0x100
DATA = 0x800  # the rings of up to 16 entries end before
EDGES = [
    0,
    DATA,
    PAGE - 1,
    PAGE,
    2 * PAGE - 1,
    2 * PAGE,
    0x1_0000_0000,
    0x1_0000_0000 + PAGE - 1,
    2**64 - PAGE,
    2**64 - 1,
]
U16 = st.integers(0, 0xFFFF)
RANDOM_BYTES = st.binary(max_size=96)

good_buffers = st.one_of(
    st.tuples(st.integers(DATA, 2 * PAGE - 64), st.integers(0, 64)),  # may cross from one region to the next
    st.tuples(st.integers(0x1_0000_0000, 0x1_0000_0000 + PAGE - 64), st.integers(0, 64)),
    st.tuples(st.integers(2**64 - PAGE, 2**64 - 64), st.integers(0, 64)),
)
good_tables = st.one_of(st.none(), st.integers(DATA, PAGE + 0x100))
any_gpa = st.one_of(st.sampled_from(EDGES), st.integers(0, 3 * PAGE), st.integers(0, 2**64 - 1))
any_length = st.one_of(st.integers(0, 80), st.sampled_from([PAGE, 16, 32, 48, 2**31, 2**32 - 1]))
any_flags = st.one_of(st.integers(0, 7), U16)
any_index = st.one_of(st.integers(0, 3), st.integers(0, 17), U16)
any_descriptor = st.tuples(any_gpa, any_length, any_flags, any_index)
raw_flags = st.sampled_from([NEXT, NEXT | WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT])
raw_end = st.sampled_from([0, WRITE, WRITE, NEXT, INDIRECT])


@st.composite
def raw_chains(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(gpa, length, flags) of a chain that is nearly right."""
    buffers = draw(st.lists(st.one_of(good_buffers, st.tuples(any_gpa, any_length)), min_size=1, max_size=5))
    flags = [draw(raw_flags) for _ in buffers[1:]] + [draw(raw_end)]
    return [(gpa, length, f) for (gpa, length), f in zip(buffers, flags, strict=True)]


raw_chain = raw_chains()


def outcome(call: Callable[[], Any]) -> Any:
    """What *call* returns, or the kind of error it raises."""
    try:
        return call()
    except (GuestError, ValueError) as e:
        return type(e).__name__


class Conforming(RuleBasedStateMachine):
    """A driver that behaves."""

    fmt: Format = SPLIT
    real: Any
    model: Any
    drivers: list[Any]

    @initialize(data=st.data(), event_idx=st.booleans(), indirect=st.booleans())
    def build(self, data: st.DataObject, event_idx: bool, indirect: bool) -> None:
        layout = self.fmt.lay_out(RING, data.draw(st.sampled_from(self.fmt.sizes), "size"))
        start = data.draw(st.sampled_from(self.fmt.starts), "start")
        self.ram = [bytearray(PAGE) for _ in BASES]
        self.model_ram = [bytearray(PAGE) for _ in BASES]
        self.memory = MemoryMap(list(zip(BASES, self.ram, strict=True)))
        self.model_memory = ModelMemory(list(zip(BASES, self.model_ram, strict=True)))
        memories = (self.memory, self.model_memory)
        self.layout, self.event_idx, self.indirect = layout, event_idx, indirect
        self.drivers = [self.fmt.driver(m, layout, event_idx=event_idx, start=start) for m in memories]
        self.make_rings(start)

    def make_rings(self, start: int) -> None:
        """New device sides over what is in memory."""
        flags: dict[str, Any] = {"event_idx": self.event_idx, "indirect": self.indirect, "start": start}
        self.real = self.fmt.ring(self.memory, self.layout, **flags)
        self.model = self.fmt.model(self.model_memory, self.layout, **flags)
        self.chains: list[tuple[Chain, ModelChain]] = []

    def driver_does(self, call: Callable[[Any], Any]) -> Any:
        """Have both drivers do the same."""
        first, second = (call(d) for d in self.drivers)
        assert first == second
        return first

    def device_does(self, call: Callable[[Any], Any]) -> Any:
        """Call both rings; they agree on the answer."""
        result = outcome(lambda: call(self.real))
        assert result == outcome(lambda: call(self.model))
        return result

    def pick(self, n: int) -> int:
        """Index of a chain in flight."""
        return n % len(self.chains)

    @invariant()
    def same_memory_and_state(self) -> None:
        assert self.ram == self.model_ram
        for name in ("next_avail", "position", "in_flight"):
            assert getattr(self.real, name) == getattr(self.model, name)
        assert self.real.broken == (self.model.broken is not None)

    @rule(
        out=st.lists(good_buffers, max_size=5),
        in_=st.lists(good_buffers, max_size=5),
        table=good_tables,
        publish=st.booleans(),
    )
    def add_chain(
        self, out: list[tuple[int, int]], in_: list[tuple[int, int]], table: int | None, publish: bool
    ) -> None:
        table = table if self.indirect else None
        needed = len(out) + len(in_) if table is None else 1
        if (out or in_) and needed <= self.drivers[0].free_descriptors:
            self.driver_does(lambda d: d.add_chain(out, in_, table))
        if publish:
            self.driver_publishes()

    @rule()
    def driver_publishes(self) -> None:
        self.driver_does(lambda d: d.publish())
        self.driver_does(lambda d: d.wants_kick())

    @rule()
    def driver_collects(self) -> None:
        self.driver_does(lambda d: d.used())

    @rule(on=st.booleans())
    def driver_sets_interrupts(self, on: bool) -> None:
        self.driver_does(lambda d: d.enable_interrupts() if on else d.disable_interrupts())

    @rule(after=st.integers(0, 18))
    def driver_asks_for_one(self, after: int) -> None:
        self.driver_does(lambda d: d.interrupt_after(after) if d.event_idx else None)

    @rule(gpa=st.integers(DATA, 2 * PAGE - 96), data=RANDOM_BYTES)
    def driver_writes_data(self, gpa: int, data: bytes) -> None:
        self.driver_does(lambda d: d.memory.write(gpa, data))

    @rule(batches=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=6), event=st.booleans())
    def go_round(self, batches: list[list[int]], event: bool) -> None:
        """Batches of chains of so many buffers, there and back: what single steps hardly come to, the next lap."""
        for lengths in batches:
            if event:
                self.driver_sets_interrupts(True)
                self.set_kicks(True)
            for n in lengths:
                if n <= self.drivers[0].free_descriptors:
                    self.driver_does(lambda d, n=n: d.add_chain([(DATA, 4)] * (n - 1), [(DATA, n)]))
            self.driver_publishes()
            self.pop(20)
            for _ in self.chains[:]:
                self.push(-1, None, False)
            self.publish()
            self.driver_collects()

    @rule(limit=st.integers(1, 20))
    def pop(self, limit: int) -> None:
        popped = outcome(lambda: self.real.pop_batch(limit))
        expected = outcome(lambda: self.model.pop_batch(limit))
        if isinstance(popped, str) or isinstance(expected, str):
            assert popped == expected
            return
        if 0 < len(popped) < len(expected):  # the segment array of a batch was full; the model has no such limit
            self.model.unpop(expected[len(popped) :])
            del expected[len(popped) :]
        for chain, model in zip(popped, expected, strict=True):
            assert (chain.head, chain.readable_bytes) == (model.head, model.readable_bytes)
            assert chain.writable_bytes == model.writable_bytes
            self.chains.append((chain, model))

    @precondition(lambda self: self.chains)
    @rule(n=U16, length=st.integers(0, 96))
    def read(self, n: int, length: int) -> None:
        chain, model = self.chains[self.pick(n)]
        assert chain.read(length) == model.read(length)
        assert chain.read_offset == model.read_offset

    @precondition(lambda self: self.chains)
    @rule(n=U16, offset=st.integers(0, 80), length=st.integers(0, 96))
    def view(self, n: int, offset: int, length: int) -> None:
        chain, model = self.chains[self.pick(n)]
        seen = b"".join(chain.readable(offset, length))
        kept, model.read_offset = model.read_offset, min(offset, model.readable_bytes)
        assert seen == model.read(length)
        model.read_offset = kept

    @precondition(lambda self: self.chains)
    @rule(n=U16, data=RANDOM_BYTES)
    def write(self, n: int, data: bytes) -> None:
        chain, model = self.chains[self.pick(n)]
        assert chain.write(data) == model.write(data)
        assert chain.written == model.written

    @precondition(lambda self: self.chains)
    @rule(n=U16, offset=st.integers(-1, 80), data=RANDOM_BYTES)
    def write_at(self, n: int, offset: int, data: bytes) -> None:
        chain, model = self.chains[self.pick(n)]
        assert outcome(lambda: chain.write_at(offset, data)) == outcome(lambda: model.write_at(offset, data))
        assert chain.written == model.written

    @precondition(lambda self: self.chains)
    @rule(n=U16, data=RANDOM_BYTES)
    def write_through_views(self, n: int, data: bytes) -> None:
        chain, model = self.chains[self.pick(n)]
        left = data
        for view in chain.writable(chain.written, len(data)):
            view[:] = left[: len(view)]
            left = left[len(view) :]
        chain.advance(len(data) - len(left))
        assert model.write(data) == len(data) - len(left)

    @precondition(lambda self: self.chains)
    @rule(n=U16, written=st.one_of(st.none(), st.integers(0, 80)), publish=st.booleans())
    def push(self, n: int, written: int | None, publish: bool) -> None:
        chain, model = self.chains[self.pick(n)]
        result = outcome(lambda: self.real.push(chain, written))
        assert result == outcome(lambda: self.model.push(model, written))
        if result is None:
            self.chains.remove((chain, model))
        if publish:
            self.publish()

    @precondition(lambda self: self.chains)
    @rule(n=st.integers(0, 4))
    def unpop(self, n: int) -> None:
        last = self.chains[len(self.chains) - n :] if n <= len(self.chains) else self.chains
        result = outcome(lambda: self.real.unpop([c for c, _ in last]))
        assert result == outcome(lambda: self.model.unpop([m for _, m in last]))
        if result is None:
            self.chains = self.chains[: len(self.chains) - len(last)]

    @rule()
    def publish(self) -> None:
        self.device_does(lambda ring: ring.publish())

    @rule()
    def hold(self) -> None:
        self.device_does(lambda ring: ring.hold())

    @rule()
    def release(self) -> None:
        self.device_does(lambda ring: ring.release())

    @rule(on=st.booleans())
    def set_kicks(self, on: bool) -> None:
        self.device_does(lambda ring: ring.enable_kicks() if on else ring.disable_kicks())

    @rule()
    def look(self) -> None:
        self.device_does(lambda ring: ring.waiting())


class Hostile(Conforming):
    """A driver that also writes what it likes, where it likes, when it likes."""

    @rule(gpa=st.integers(DATA, PAGE + 0x100), entries=st.lists(any_descriptor, min_size=1, max_size=6))
    def poke_table(self, gpa: int, entries: list[tuple[int, int, int, int]]) -> None:
        table = b"".join(DESC.pack(*e) for e in entries)
        self.driver_does(lambda d: d.memory.write(gpa, table))

    @precondition(lambda self: self.real.broken)
    @rule()
    def reset(self) -> None:
        self.real.close()
        self.make_rings(self.drivers[0].published_avail)


class HostileSplit(Hostile):
    """What that is in split rings."""

    @rule(index=st.integers(0, 15), descriptor=any_descriptor)
    def poke_descriptor(self, index: int, descriptor: tuple[int, int, int, int]) -> None:
        self.driver_does(lambda d: d.write_desc(index % d.layout.size, *descriptor))

    @rule(chain=raw_chain, table=st.one_of(st.none(), st.integers(DATA, PAGE + 0x100)), spoil=st.booleans())
    def offer_raw(self, chain: list[tuple[int, int, int]], table: int | None, spoil: bool) -> None:
        """A chain in RAM, with directions as they come; *spoil* makes an indirect table end too early."""
        size = self.layout.size
        head = self.drivers[0].next_avail % size
        if table is None:
            for i, (gpa, length, flags) in enumerate(chain):
                entry = (gpa, length, flags, (head + i + 1) % size)
                self.driver_does(lambda d, i=i, entry=entry: d.write_desc((head + i) % size, *entry))
        else:
            entries = b"".join(DESC.pack(*descriptor, i + 1) for i, descriptor in enumerate(chain))
            self.driver_does(lambda d: d.memory.write(table, entries))
            length = len(entries) - 16 * spoil
            self.driver_does(lambda d: d.write_desc(head, table, length, INDIRECT))
        self.driver_does(lambda d: d.make_available(head))
        self.driver_publishes()
        self.pop(1)

    @precondition(lambda self: self.chains)
    @rule(n=U16)
    def offer_again(self, n: int) -> None:
        head = self.chains[self.pick(n)][1].head
        self.driver_does(lambda d: d.make_available(head))
        self.driver_publishes()

    @rule(head=any_index, n=st.integers(1, 4))
    def poke_avail(self, head: int, n: int) -> None:
        for i in range(n):
            self.driver_does(lambda d, i=i: d.make_available((head + i) & 0xFFFF))
        self.driver_does(lambda d: d.publish())

    @rule(step=st.one_of(st.integers(-2, 18), U16))
    def poke_avail_idx(self, step: int) -> None:
        self.driver_does(lambda d: d.set_avail_idx(d.published_avail + step))

    @rule(flags=U16, event=U16)
    def poke_notification(self, flags: int, event: int) -> None:
        self.driver_does(lambda d: d.set_avail_flags(flags))
        self.driver_does(lambda d: d.set_used_event(event))


class HostilePacked(Hostile):
    """What that is in packed rings."""

    fmt = PACKED_RINGS

    @rule(slot=st.integers(0, 15), descriptor=any_descriptor)
    def poke_descriptor(self, slot: int, descriptor: tuple[int, int, int, int]) -> None:
        self.driver_does(lambda d: d.write_desc(slot, *descriptor))

    @rule(chain=raw_chain, head=any_index, spoil=st.sampled_from([0, 0, 0, DESC_F_AVAIL, DESC_F_USED]))
    def offer_raw(self, chain: list[tuple[int, int, int]], head: int, spoil: int) -> None:
        """A list in RAM, with directions as they come; *spoil* makes one that ends in what is not available."""
        raw = [(*buffer, i) for i, buffer in enumerate(chain)]
        raw[-1] = (*raw[-1][:2], raw[-1][2] ^ spoil, head)
        self.driver_does(lambda d: d.poke(raw, head))
        self.driver_does(lambda d: d.wants_kick())
        self.pop(1)

    @rule(chain=raw_chain, table=st.integers(DATA, PAGE + 0x100), head=any_index, flags=raw_end, cut=st.integers(-1, 1))
    def offer_table(self, chain: list[tuple[int, int, int]], table: int, head: int, flags: int, cut: int) -> None:
        """The same in an indirect table, which may end too early or too late."""
        entries = b"".join(DESC.pack(*descriptor[:2], i, descriptor[2]) for i, descriptor in enumerate(chain))
        self.driver_does(lambda d: d.memory.write(table, entries))
        self.driver_does(lambda d: d.poke([(table, len(entries) + 8 * cut, INDIRECT | flags, 0)], head))
        self.pop(1)

    @precondition(lambda self: self.chains)
    @rule(n=U16)
    def offer_again(self, n: int) -> None:
        head = self.chains[self.pick(n)][1].head
        self.driver_does(lambda d: d.poke([(DATA, 4, 0, 0)], head))

    @rule(ahead=st.integers(-3, 3), marks=st.sampled_from([0, DESC_F_AVAIL, DESC_F_USED, DESC_F_AVAIL | DESC_F_USED]))
    def poke_marks(self, ahead: int, marks: int) -> None:
        """A descriptor near the next one becomes available, used, or neither, as it stands."""
        at = self.drivers[0].next_avail + ahead
        flags = self.drivers[0].desc(at)[3] & ~(DESC_F_AVAIL | DESC_F_USED) | marks
        self.driver_does(lambda d: d.set_flags(at, flags))

    @rule(n=st.integers(1, 20))
    def overrun(self, n: int) -> None:
        """More than there is room for, over what was not returned."""
        for i in range(n):
            self.driver_does(lambda d, i=i: d.poke([(DATA, 4, 0, 0)], 0x4000 + i))

    @rule(event=U16, flags=st.one_of(st.integers(0, 3), U16))
    def poke_notification(self, event: int, flags: int) -> None:
        self.driver_does(lambda d: d.set_driver_event(event, flags))


class ConformingPacked(Conforming):
    """A driver of packed rings that behaves."""

    fmt = PACKED_RINGS


for machine, examples, steps in ((Conforming, 60, 40), (ConformingPacked, 60, 40), (HostileSplit, 100, 40)):
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
HostilePacked.TestCase.settings = HostileSplit.TestCase.settings
TestConformingSplit = Conforming.TestCase
TestConformingPacked = ConformingPacked.TestCase
TestHostileSplit = HostileSplit.TestCase
TestHostilePacked = HostilePacked.TestCase
