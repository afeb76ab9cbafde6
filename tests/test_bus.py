"""acrn_dm.bus: which range answers an address."""

import pytest

from acrn_dm.bus import BAR, Bus


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
    assert bus.unclaimed == 1


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
