"""The packed ring's driver and, behind it, the model and the native ring: both against examples of virtio 1.4, 2.8."""

from typing import Any

import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.ring.model import ModelMemory
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from tests.ring.formats import PACKED_RINGS

RING, DATA, TABLE = 0x1000, 0x8000, 0x7000
AVAIL, USED = 0x80, 0x8000
ENABLE, DISABLE, DESC = 0, 1, 2


@pytest.fixture(params=["model", "native"])
def sides(request: pytest.FixtureRequest) -> type["Sides"]:
    """``Sides`` with one of the two device sides."""
    return type("Sides", (Sides,), {"native": request.param == "native"})


class Sides:
    """A driver and a device side on one ring; ``slot`` reads a descriptor as bytes of the specification."""

    native = False

    def __init__(self, size: int = 4, *, event_idx: bool = False, indirect: bool = False, start: int = 0) -> None:
        regions = [(0, bytearray(0x1_0000))]
        self.memory: Any = MemoryMap(regions) if self.native else ModelMemory(regions)
        self.layout = packed_layout(RING, size)
        self.driver = PackedDriverRing(self.memory, self.layout, event_idx=event_idx, start=start)
        make: Any = PACKED_RINGS.ring if self.native else PACKED_RINGS.model
        self.ring = make(self.memory, self.layout, event_idx=event_idx, indirect=indirect, start=start)

    def slot(self, n: int) -> tuple[int, int, int, int]:
        raw = self.memory.read(self.layout.desc + 16 * n, 16)
        return tuple(int.from_bytes(raw[a:b], "little") for a, b in ((0, 8), (8, 12), (12, 14), (14, 16)))  # type: ignore[return-value]

    def offer(self, n_out: int = 1, n_in: int = 0, table: int | None = None) -> int:
        out = [(DATA + 16 * i, 4) for i in range(n_out)]
        head = self.driver.add_chain(out, [(DATA + 0x100 + 16 * i, 4) for i in range(n_in)], table)
        self.driver.publish()
        return head

    def serve(self, written: int = 0) -> bool:
        """Return all that is there; whether an interrupt is due."""
        for chain in self.ring.pop_batch():
            self.ring.push(chain, min(written, chain.writable_bytes))
        return self.ring.publish()


def test_available_and_used_marks_turn_over_each_time_round(sides: type[Sides]) -> None:
    s = sides(2)
    seen = []
    for _ in range(5):
        slot = s.driver.last_used % 2
        s.offer()
        available = s.slot(slot)[3]
        s.serve()
        seen.append((available, s.slot(slot)[3]))
        assert s.driver.used()
    assert seen == [(AVAIL, AVAIL | USED)] * 2 + [(USED, 0)] * 2 + [(AVAIL, AVAIL | USED)]


def test_list_is_shown_by_its_first_descriptor_last_and_named_by_its_last_one(sides: type[Sides]) -> None:
    s = sides(4)
    head = s.driver.add_chain([(DATA, 4)], [(DATA, 8)])
    assert s.slot(0)[3] == 0
    assert not s.ring.waiting()
    s.driver.publish()
    assert s.slot(0)[3] == AVAIL | DESC_F_NEXT
    assert s.slot(1) == (DATA, 8, head, AVAIL | DESC_F_WRITE)
    (chain,) = s.ring.pop_batch()
    assert (chain.head, chain.readable_bytes, chain.writable_bytes) == (head, 4, 8)


def test_one_used_descriptor_stands_for_a_list_and_the_next_one_behind_it(sides: type[Sides]) -> None:
    s = sides(5)
    first, second = s.offer(2, 1), s.offer(0, 2)
    s.serve(3)
    assert s.slot(0)[1:] == (3, first, AVAIL | USED | DESC_F_WRITE)
    assert s.slot(1)[3] == AVAIL | DESC_F_NEXT
    assert s.slot(3)[1:] == (3, second, AVAIL | USED | DESC_F_WRITE)
    assert s.driver.used() == [(first, 3), (second, 3)]
    assert s.driver.free_descriptors == 5


def test_chains_come_back_in_the_order_in_which_they_are_done(sides: type[Sides]) -> None:
    s = sides(4)
    heads = [s.offer() for _ in range(3)]
    chains = s.ring.pop_batch()
    for n in (2, 0, 1):
        s.ring.push(chains[n], 0)
    s.ring.publish()
    assert [s.slot(n)[2] for n in range(3)] == [heads[2], heads[0], heads[1]]
    assert s.driver.used() == [(heads[n], 0) for n in (2, 0, 1)]


def test_nothing_pushed_is_seen_before_it_is_published(sides: type[Sides]) -> None:
    s = sides(4)
    s.offer()
    s.offer()
    for chain in s.ring.pop_batch():
        s.ring.push(chain, 0)
    assert s.driver.returned() == 0
    s.ring.publish()
    assert s.driver.returned() == 2


def test_used_descriptor_says_that_nothing_was_written(sides: type[Sides]) -> None:
    s = sides(2)
    head = s.offer(1, 0)
    s.serve(0)
    assert s.slot(0)[3] & DESC_F_WRITE == 0
    s.memory.write(s.layout.desc + 8, b"\xff\xff\xff\xff")  # reserved then
    assert s.driver.used() == [(head, 0)]


def test_indirect_table_is_read_in_sequence_whatever_else_it_says(sides: type[Sides]) -> None:
    s = sides(2, indirect=True)
    s.memory.write(DATA, b"abcdefgh")
    head = s.driver.add_chain([(DATA + 4, 4), (DATA, 2)], [(DATA + 0x100, 8)], TABLE)
    for entry in range(3):  # ids, NEXT, AVAIL and USED mean nothing here
        at = TABLE + 16 * entry + 12
        flags = int.from_bytes(s.memory.read(at + 2, 2), "little") | DESC_F_NEXT | AVAIL | USED
        s.memory.write(at, b"\x77\x77" + flags.to_bytes(2, "little"))
    s.driver.publish()
    (chain,) = s.ring.pop_batch()
    assert (chain.head, chain.read(), chain.writable_bytes) == (head, b"efghab", 8)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_ring_of_any_size_goes_round(sides: type[Sides], size: int) -> None:
    s = sides(size)
    for n in range(3 * size + 2):
        head = s.offer(min(size, 1 + n % 3))
        s.serve()
        assert s.driver.used() == [(head, 0)]
    assert s.driver.free_descriptors == size


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5, 9])
def test_ring_taken_up_anywhere_goes_on(sides: type[Sides], start: int) -> None:
    s = sides(3, start=start)
    assert not s.ring.waiting()
    assert s.driver.returned() == 0
    for _ in range(7):
        head = s.offer(2)
        s.serve()
        assert s.driver.used() == [(head, 0)]


# Malformed rings


BAD: dict[str, list[tuple[int, int, int, int]]] = {
    "loop": [(DATA, 4, DESC_F_NEXT, 0)] * 4,
    "goes on where nothing is available": [(DATA, 4, DESC_F_NEXT, 0)],
    "indirect in a list": [(DATA, 4, DESC_F_NEXT, 0), (TABLE, 16, DESC_F_INDIRECT, 0)],
    "indirect with next": [(TABLE, 16, DESC_F_INDIRECT | DESC_F_NEXT, 0), (DATA, 4, 0, 0)],
    "indirect not negotiated": [(TABLE, 16, DESC_F_INDIRECT, 0)],
    "indirect of no bytes": [(TABLE, 0, DESC_F_INDIRECT, 0)],
    "indirect of odd length": [(TABLE, 17, DESC_F_INDIRECT, 0)],
    "indirect outside RAM": [(0xFFF8, 16, DESC_F_INDIRECT, 0)],
    "readable after writable": [(DATA, 4, DESC_F_NEXT | DESC_F_WRITE, 0), (DATA, 4, 0, 0)],
    "outside RAM": [(0xFFFF, 2, 0, 0)],
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_chain_breaks_the_ring(sides: type[Sides], name: str) -> None:
    s = sides(4, indirect="negotiated" not in name)
    s.driver.poke(BAD[name])
    for _ in range(2):
        with pytest.raises(GuestError):
            s.ring.pop_batch()
    assert s.ring.broken


def test_buffer_id_that_is_in_flight_breaks_the_ring(sides: type[Sides]) -> None:
    s = sides(4)
    s.driver.poke([(DATA, 4, 0, 0)], 7)
    s.driver.poke([(DATA, 4, 0, 0)], 7)
    assert len(s.ring.pop_batch()) == 1
    with pytest.raises(GuestError, match="flight"):
        s.ring.pop_batch()


def test_more_descriptors_than_the_ring_has_break_it(sides: type[Sides]) -> None:
    s = sides(2)
    for n in range(2):
        s.driver.poke([(DATA, 4, 0, 0)], n)
    assert len(s.ring.pop_batch()) == 2
    s.driver.poke([(DATA, 4, 0, 0)], 2)  # over the first, which was not returned
    with pytest.raises(GuestError, match=r"all 2|more than 2"):
        s.ring.pop_batch()


# Notifications


def test_driver_that_enables_events_gets_one_for_each_publish(sides: type[Sides]) -> None:
    s = sides(4)
    s.offer()
    assert s.serve()
    assert not s.ring.publish()


def test_driver_that_disables_events_gets_none(sides: type[Sides]) -> None:
    s = sides(4)
    s.driver.disable_interrupts()
    s.offer()
    assert not s.serve()


def interrupts(s: Sides, counts: list[int]) -> list[bool]:
    """One publish for each of *counts*, of so many chains."""
    seen = []
    for count in counts:
        for _ in range(count):
            s.offer()
        seen.append(s.serve())
        s.driver.used()
    return seen


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_descriptor_event_comes_when_that_descriptor_is_used(sides: type[Sides], after: int, start: int) -> None:
    s = sides(3, event_idx=True, start=start)
    s.driver.interrupt_after(after)
    assert interrupts(s, [1] * 6) == [n == after for n in range(6)]


def test_descriptor_event_within_a_batch_or_a_list_counts(sides: type[Sides]) -> None:
    s = sides(4, event_idx=True)
    s.driver.interrupt_after(1)
    assert interrupts(s, [3]) == [True]
    s.driver.set_driver_event(0 | 0 << 15, DESC)  # the second of a list of two, over the end of the ring
    s.offer(2)
    assert s.serve()


def test_descriptor_event_of_the_other_lap_is_none(sides: type[Sides]) -> None:
    s = sides(4, event_idx=True)
    s.driver.set_driver_event(1 | 0 << 15, DESC)
    assert interrupts(s, [1, 1, 1, 1, 1, 1]) == [False] * 5 + [True]


def test_descriptor_event_without_the_feature_enables(sides: type[Sides]) -> None:
    s = sides(4)
    s.driver.set_driver_event(3 | 1 << 15, DESC)
    s.offer()
    assert s.serve()


@pytest.mark.parametrize("event_idx", [False, True])
def test_kick_is_wanted_once_it_is_enabled_and_not_when_disabled(sides: type[Sides], event_idx: bool) -> None:
    s = sides(4, event_idx=event_idx)
    s.ring.disable_kicks()
    assert s.driver.device_event()[1] == DISABLE
    s.offer()
    assert not s.driver.wants_kick()
    assert s.ring.enable_kicks()  # there is one
    s.serve()
    assert not s.ring.enable_kicks()
    assert s.driver.device_event() == ((1 | 1 << 15, DESC) if event_idx else (0, ENABLE))
    s.offer()
    assert s.driver.wants_kick()
    s.offer()
    assert s.driver.wants_kick() is not event_idx  # of the second the device has not asked


@pytest.mark.parametrize("event_idx", [False, True])
def test_chain_that_was_seen_and_left_is_no_news_and_the_next_one_is(sides: type[Sides], event_idx: bool) -> None:
    """A network card leaves the buffers that it has no frame for: it span, told of them again and again."""
    s = sides(3, event_idx=event_idx, start=2)
    for n in range(2):  # the second one on the next lap
        s.offer()
        assert s.driver.wants_kick() or n == 0
        assert s.ring.enable_kicks()
        assert not s.ring.enable_kicks()
    s.ring.pop_batch(1)
    assert not s.ring.enable_kicks()
    s.offer()
    assert s.driver.wants_kick()
    assert len(s.ring.pop_batch()) == 2
    assert not s.ring.enable_kicks()


def test_driver_that_enables_interrupts_sees_what_came_before(sides: type[Sides]) -> None:
    s = sides(4, event_idx=True)
    s.driver.disable_interrupts()
    s.offer()
    s.serve()
    assert s.driver.enable_interrupts()
    s.driver.used()
    assert not s.driver.enable_interrupts()


def test_chains_given_back_are_taken_again(sides: type[Sides]) -> None:
    s = sides(5)
    heads = [s.offer(2), s.offer(1)]
    chains = s.ring.pop_batch()
    s.ring.unpop(chains[1:])
    s.ring.unpop(chains[:1])
    assert [chain.head for chain in s.ring.pop_batch()] == heads


def test_position_is_where_the_next_used_descriptor_goes_on_both_sides(sides: type[Sides]) -> None:
    s = sides(3)
    assert s.ring.position.base == s.driver.position.base == 0x8000_8000
    s.offer(2)
    s.serve()
    s.offer(1)
    s.ring.pop_batch()
    assert s.ring.next_avail == 0  # slot 0 of the next lap
    assert s.ring.position.base == 0x8002_8002


# Rows of the specification that no device shows


def test_d_packed_multi_buffer_first_is_shown_last(sides: type[Sides]) -> None:
    """Row d.packed.multi_buffer: a frame's later buffers are marked used while its first one is not; then that is."""
    s = sides(4)
    s.offer(0, 1)
    s.offer(0, 1)
    s.offer(0, 1)
    for chain in s.ring.pop_batch():
        s.ring.push(chain, 4)
    marks = [s.slot(n)[3] & (AVAIL | USED) for n in range(3)]
    assert marks == [AVAIL, AVAIL | USED, AVAIL | USED]
    s.ring.publish()
    assert [s.slot(n)[3] & (AVAIL | USED) for n in range(3)] == [AVAIL | USED] * 3


def test_packed_used_write_reorder_is_not_seen_by_who_looks_at_the_next_one_only(sides: type[Sides]) -> None:
    """Row packed.used_write_reorder: later used descriptors may be written before the one to be expected next."""
    s = sides(4)
    heads = [s.offer() for _ in range(2)]
    s.driver.set_flags(1, AVAIL | USED)
    assert (s.driver.returned(), s.driver.used()) == (0, [])
    s.driver.set_flags(0, AVAIL | USED)
    assert s.driver.used() == [(head, 0) for head in heads]


def test_d_packed_next_reserved_used_is_ignored_by_the_driver(sides: type[Sides]) -> None:
    """Row d.packed.next_reserved_used: NEXT in a used descriptor leads nowhere."""
    s = sides(4)
    heads = [s.offer(2), s.offer(2)]
    s.serve()
    for n in (0, 2):
        s.driver.set_flags(n, s.slot(n)[3] | DESC_F_NEXT)
    assert s.driver.used() == [(head, 0) for head in heads]
    assert s.driver.free_descriptors == 4
