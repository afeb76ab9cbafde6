"""acrn_dm.base.bus: which range answers an address."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.base.bus import BAR, PLATFORM, Bus, Range
from tests.work import instructions


class Recorder:
    """A handler that answers with a constant and remembers writes."""

    def __init__(self, answer: int = 0) -> None:
        self.answer = answer
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return self.answer + offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


@pytest.fixture
def bus() -> Bus:
    return Bus(name="test", limit=1 << 16)


def test_read_inside_a_range_gets_the_offset(bus: Bus) -> None:
    bus.register(0x100, 0x10, Recorder(), "device")
    assert bus.read(0x104, 4) == 4


def test_write_inside_a_range_reaches_its_handler(bus: Bus) -> None:
    handler = Recorder()
    bus.register(0x100, 0x10, handler, "device")
    bus.write(0x10E, 2, 0xABCD)
    assert handler.writes == [(0xE, 2, 0xABCD)]


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, (1 << 64) - 1)])
def test_read_of_an_unclaimed_address_is_all_ones(bus: Bus, size: int, ones: int) -> None:
    assert bus.read(0x200, size) == ones


def test_access_across_a_ranges_end_is_nobodys(bus: Bus) -> None:
    handler = Recorder()
    bus.register(0x100, 0x10, handler, "device")
    bus.write(0x10E, 4, 1)
    assert handler.writes == []
    assert bus.read(0x10E, 4) == 0xFFFF_FFFF


def test_handler_answer_is_cut_to_the_access_size(bus: Bus) -> None:
    bus.register(0x100, 0x10, Recorder(0x1234), "device")
    assert bus.read(0x100, 1) == 0x34


def test_platform_range_wins_over_a_bar_moved_on_top_of_it(bus: Bus) -> None:
    bus.register(0x0, 0x1000, Recorder(0xB0), "bar", BAR)
    bus.register(0x60, 4, Recorder(0x10), "keyboard")
    assert bus.read(0x60, 1) == 0x10
    assert bus.read(0x5F, 1) == (0xB0 + 0x5F) & 0xFF
    assert bus.read(0x64, 1) == (0xB0 + 0x64) & 0xFF


def test_covered_range_answers_again_after_the_upper_one_leaves(bus: Bus) -> None:
    bus.register(0x100, 0x10, Recorder(1), "first", BAR)
    upper = bus.register(0x104, 4, Recorder(0x70), "upper")
    bus.unregister(upper)
    bus.unregister(upper)
    assert bus.read(0x104, 1) == 5


def test_earlier_registration_wins_among_equals(bus: Bus) -> None:
    bus.register(0x100, 0x10, Recorder(1), "first", BAR)
    bus.register(0x100, 0x10, Recorder(2), "second", BAR)
    assert bus.read(0x100, 1) == 1


@pytest.mark.parametrize(("base", "size"), [(0xFFFF, 2), (-1, 1), (0, 0), (0x10000, 1)])
def test_range_outside_the_space_is_refused(bus: Bus, base: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        bus.register(base, size, Recorder(), "device")


def stretches(bus: Bus) -> int:
    return len(bus._table[1])


def test_pieces_of_a_covered_range_join_again_when_the_upper_ones_leave(bus: Bus) -> None:
    bus.register(0x100, 0x100, Recorder(), "lower", BAR)
    uppers = [bus.register(0x110 + 8 * i, 4, Recorder(), "upper") for i in range(4)]
    before = stretches(bus)
    for upper in uppers:
        bus.unregister(upper)
    assert (before, stretches(bus)) == (9, 1)


def test_change_on_a_full_bus_costs_what_one_on_an_empty_bus_does(bus: Bus) -> None:
    def toggle() -> None:
        bus.unregister(bus.register(0x8000, 0x10, Recorder(), "toggled", BAR))

    empty = instructions(toggle)
    for i in range(200):
        bus.register(0x20 * i, 0x10, Recorder(), "below", BAR)
        bus.register(0x9000 + 0x20 * i, 0x10, Recorder(), "above", BAR)
    assert instructions(toggle) <= 1.1 * empty


def test_change_among_ranges_all_at_one_place_is_cheap(bus: Bus) -> None:
    """A guest may move every BAR on top of one another."""

    def toggle() -> None:
        bus.unregister(bus.register(0x100, 0x10, Recorder(), "toggled", BAR))

    few = [bus.register(0x100, 0x10, Recorder(), "same", BAR) for _ in range(10)]
    cost = instructions(toggle)
    few += [bus.register(0x100, 0x10, Recorder(), "same", BAR) for _ in range(390)]
    assert instructions(toggle) <= 2 * cost
    assert bus.find(0x108, 1) == (few[0], 8)


@attrs.define
class Model:
    """All ranges in a list, looked through at each access."""

    ranges: list[Range] = attrs.field(factory=list)

    def find(self, addr: int) -> Range | None:
        holders = [r for r in self.ranges if r.base <= addr < r.end]
        return min(holders, key=lambda r: (r.priority, self.ranges.index(r)), default=None)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from([PLATFORM, BAR])),
        st.integers(0, 20),  # leave
    ),
    max_size=40,
)


@given(changes=CHANGES)
def test_any_sequence_of_changes_leaves_what_looking_through_all_ranges_finds(changes: list[object]) -> None:
    bus, model = Bus(name="test", limit=64), Model()
    for change in changes:
        if isinstance(change, tuple):
            base, size, priority = change
            model.ranges.append(bus.register(base, size, Recorder(), "range", priority))
        elif isinstance(change, int) and change < len(model.ranges):
            bus.unregister(model.ranges.pop(change))
    found = [bus.find(addr, 1) for addr in range(64)]
    assert [claimed and claimed[0] for claimed in found] == [model.find(addr) for addr in range(64)]
    assert set(bus._ranges) == set(model.ranges)
    assert stretches(bus) <= 2 * len(model.ranges)
