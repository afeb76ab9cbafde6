"""BARs: sizing, moving, decoding, overlap; also against a model, under random sequences."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.pci.bar import BarKind, round_up_size
from tests.pci.parts import COMMAND, Probe, Registers, Setup

BAR0, BAR1, BAR2 = 0x10, 0x14, 0x18
ONES = 0xFFFF_FFFF


def one_bar(kind: BarKind, size: int = 0x1000) -> tuple[Setup, Probe, Registers]:
    function, registers = Probe(), Registers(0x5A)
    function.add_bar(0, size, kind, registers)
    return Setup(function), function, registers


@pytest.mark.parametrize(
    ("size", "kind", "expected"),
    [
        (1, BarKind.IO, 4),
        (4, BarKind.IO, 4),
        (5, BarKind.IO, 8),
        (1, BarKind.MEM32, 16),
        (0x1001, BarKind.MEM32, 0x2000),
        (1 << 40, BarKind.MEM64, 1 << 40),
    ],
)
def test_size_is_rounded_up_to_a_power_of_two(size: int, kind: BarKind, expected: int) -> None:
    assert round_up_size(size, kind) == expected


@pytest.mark.parametrize(
    ("size", "kind"), [(0, BarKind.IO), (-1, BarKind.MEM32), (0x8001, BarKind.IO), ((1 << 31) + 1, BarKind.MEM32)]
)
def test_size_that_cannot_be_made_raises(size: int, kind: BarKind) -> None:
    with pytest.raises(ValueError):
        round_up_size(size, kind)


@pytest.mark.parametrize("index", [-1, 6])
def test_bar_index_that_does_not_exist_raises(index: int) -> None:
    with pytest.raises(ValueError):
        Probe().add_bar(index, 16, BarKind.MEM32, Registers())


def test_64_bit_bar_in_the_last_register_raises() -> None:
    with pytest.raises(ValueError):
        Probe().add_bar(5, 16, BarKind.MEM64, Registers())


def test_bar_in_the_upper_half_of_a_64_bit_one_raises() -> None:
    function = Probe()
    function.add_bar(2, 16, BarKind.MEM64, Registers())
    with pytest.raises(ValueError):
        function.add_bar(3, 16, BarKind.MEM32, Registers())
    with pytest.raises(ValueError):
        function.add_bar(1, 16, BarKind.MEM64, Registers())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(BarKind.IO, 0xF001), (BarKind.MEM32, 0xFFFF_F000), (BarKind.MEM64, 0xFFFF_F004)],
)
def test_sizing_reads_back_size_and_type(kind: BarKind, expected: int) -> None:
    setup, function, _ = one_bar(kind)
    setup.write(function, BAR0, ONES)
    assert setup.read(function, BAR0) == expected


def test_sizing_of_the_upper_half_reads_ones() -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    setup.write(function, BAR1, ONES)
    assert setup.read(function, BAR1) == ONES


def test_sizing_a_bar_larger_than_4g_shows_in_the_upper_half() -> None:
    setup, function, _ = one_bar(BarKind.MEM64, 1 << 33)
    setup.write(function, BAR0, ONES)
    setup.write(function, BAR1, ONES)
    assert setup.read(function, BAR0) == 0xC
    assert setup.read(function, BAR1) == 0xFFFF_FFFE


def test_register_without_a_bar_reads_zero_when_sized() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, BAR2, ONES)
    assert setup.read(function, BAR2) == 0


def test_sizing_with_decoding_on_moves_nothing() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    base, calls = function.bars[0].base, list(function.calls)
    old = setup.read(function, BAR0)
    setup.write(function, BAR0, ONES)
    assert setup.mmio.read(base, 1) == 0x5A
    setup.write(function, BAR0, old)
    assert setup.mmio.read(base, 1) == 0x5A
    assert function.calls == calls


def test_another_address_after_sizing_with_decoding_on_moves() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    base = function.bars[0].base
    setup.write(function, BAR0, ONES)
    setup.write(function, BAR0, 0x9000_0000)
    assert setup.mmio.read(0x9000_0000, 1) == 0x5A
    assert setup.mmio.read(base, 1) == 0xFF


def test_sizing_64_bit_halves_one_after_the_other_moves_nothing() -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    base, calls = function.bars[0].base, list(function.calls)
    for register in (BAR0, BAR1):
        old = setup.read(function, register)
        setup.write(function, register, ONES)
        setup.write(function, register, old)
    assert setup.mmio.read(base, 1) == 0x5A
    assert function.calls == calls


def test_decoding_switched_on_while_sizing_answers_at_the_last_address() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    base = function.bars[0].base
    setup.write(function, COMMAND, 0, 2)
    setup.write(function, BAR0, ONES)
    setup.write(function, COMMAND, 7, 2)
    assert setup.mmio.read(base, 1) == 0x5A


def test_move_is_seen_by_the_device_as_unmapped_then_mapped() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    function.calls.clear()
    setup.write(function, BAR0, 0x9000_0FFF)
    assert function.calls == [("unmapped", 0), ("mapped", 0, 0x9000_0000)]


def test_same_address_again_is_no_move() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    function.calls.clear()
    setup.write(function, BAR0, setup.read(function, BAR0))
    assert function.calls == []


def test_64_bit_bar_moves_with_either_half() -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    setup.write(function, BAR1, 0x40)
    setup.write(function, BAR0, 0x1000)
    assert function.bars[0].base == 0x40_0000_1000
    assert setup.mmio.read(0x40_0000_1000, 1) == 0x5A


@pytest.mark.parametrize(("kind", "bit", "space"), [(BarKind.IO, 1, "pio"), (BarKind.MEM32, 2, "mmio")])
def test_decoding_off_and_on_again(kind: BarKind, bit: int, space: str) -> None:
    setup, function, _ = one_bar(kind)
    base, bus = function.bars[0].base, getattr(setup, space)
    function.calls.clear()
    setup.write(function, COMMAND, 7 & ~bit, 2)
    assert bus.read(base, 1) == 0xFF
    setup.write(function, COMMAND, 7, 2)
    assert bus.read(base, 1) == 0x5A
    assert function.calls == [("unmapped", 0), ("command",), ("mapped", 0, base), ("command",)]


@pytest.mark.parametrize(("kind", "other"), [(BarKind.IO, 2), (BarKind.MEM32, 1)])
def test_decoding_of_the_other_space_does_not_matter(kind: BarKind, other: int) -> None:
    setup, function, _ = one_bar(kind)
    setup.write(function, COMMAND, 7 & ~other, 2)
    assert function.bars[0].mapped


def test_move_with_decoding_off_takes_effect_when_it_is_on() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, COMMAND, 0, 2)
    setup.write(function, BAR0, 0xA000_0000)
    assert setup.mmio.read(0xA000_0000, 1) == 0xFF
    setup.write(function, COMMAND, 2, 2)
    assert setup.mmio.read(0xA000_0000, 1) == 0x5A


def test_address_zero_means_not_placed() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, BAR0, 0)
    assert not function.bars[0].mapped


def test_64_bit_bar_behind_the_address_space_does_not_answer() -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    setup.write(function, BAR1, 0xFFFF_FFF0)
    assert not function.bars[0].mapped
    setup.write(function, BAR1, 0)
    assert function.bars[0].mapped


def test_io_address_has_16_bits() -> None:
    setup, function, _ = one_bar(BarKind.IO, 0x20)
    setup.write(function, BAR0, 0xABCD_3000)
    assert setup.read(function, BAR0) == 0x3001
    assert function.bars[0].base == 0x3000


def test_byte_writes_reach_only_their_bytes() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, BAR0, 0x9000_0000)
    setup.write(function, BAR0 + 3, 0xA1, 1)
    setup.write(function, BAR0 + 1, 0x70, 1)
    assert function.bars[0].base == 0xA100_7000


def test_access_is_offered_with_its_offset_and_size() -> None:
    setup, function, registers = one_bar(BarKind.MEM32)
    base = function.bars[0].base
    setup.mmio.write(base + 0x10, 4, 0x1234_5678)
    setup.mmio.read(base + 0x18, 8)
    assert registers.writes == [(0x10, 4, 0x1234_5678)]
    assert registers.reads == [(0x18, 8)]


@pytest.mark.parametrize(("offset", "size"), [(0xFFF, 2), (0xFFD, 4), (0xFF9, 8)])
def test_row_49_access_across_the_end_of_a_bar_reads_ones(offset: int, size: int) -> None:
    setup, function, registers = one_bar(BarKind.MEM32)
    base = function.bars[0].base
    assert setup.mmio.read(base + offset, size) == (1 << (8 * size)) - 1
    setup.mmio.write(base + offset, size, 0)
    assert registers.reads == []
    assert registers.writes == []


@pytest.mark.parametrize("size", [0, 3, 5, 6, 7, 16])
def test_row_50_odd_access_sizes_never_reach_the_device(size: int) -> None:
    setup, function, registers = one_bar(BarKind.MEM32)
    base = function.bars[0].base
    assert setup.mmio.read(base, size) == (1 << (8 * size)) - 1
    setup.mmio.write(base, size, 0)
    assert (registers.reads, registers.writes) == ([], [])


def test_access_begun_before_the_bar_left_reads_ones() -> None:
    setup, function, registers = one_bar(BarKind.MEM32)
    found = setup.mmio.find(function.bars[0].base, 4)
    assert found is not None
    setup.write(function, BAR0, 0x9000_0000)
    assert found[0].handler.read(0, 4) == ONES
    found[0].handler.write(0, 4, 1)
    assert (registers.reads, registers.writes) == ([], [])


def test_of_overlapping_bars_one_answers_and_the_other_when_it_left() -> None:
    function = Probe()
    function.add_bar(0, 0x1000, BarKind.MEM32, Registers(1))
    function.add_bar(1, 0x1000, BarKind.MEM32, Registers(2))
    setup = Setup(function)
    setup.write(function, BAR0, 0x9000_0000)
    setup.write(function, BAR1, 0x9000_0000)
    assert setup.mmio.read(0x9000_0000, 1) == 1
    setup.write(function, BAR0, 0x9100_0000)
    assert setup.mmio.read(0x9000_0000, 1) == 2


def test_bar_on_the_configuration_ports_does_not_take_them() -> None:
    setup, function, registers = one_bar(BarKind.IO, 0x100)
    setup.write(function, BAR0, 0x0C00)
    setup.pio.write(0xCF8, 4, 0x8000_0000 | 3 << 11)
    assert setup.pio.read(0xCFC, 4) == setup.read(function, 0)
    assert registers.writes == []


def test_bar_on_the_ecam_window_does_not_take_it() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, BAR0, 0xE000_0000 | 3 << 15)
    assert setup.mmio.read(0xE000_0000 | 3 << 15, 4) == setup.read(function, 0)


def test_reset_brings_moved_bars_home() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    home = function.bars[0].base
    setup.write(function, BAR0, 0x9000_0000)
    setup.write(function, COMMAND, 0, 2)
    with function.lock:
        function.reset()
    assert setup.mmio.read(home, 1) == 0x5A
    assert function.calls[-2:] == [("mapped", 0, home), ("command",)]


def test_reset_during_sizing_forgets_it() -> None:
    setup, function, _ = one_bar(BarKind.MEM32)
    setup.write(function, BAR0, ONES)
    with function.lock:
        function.reset()
    setup.write(function, BAR0, 0x9000_0000)
    assert setup.mmio.read(0x9000_0000, 1) == 0x5A


def test_row_64_two_instances_share_no_state() -> None:
    first, second = Probe(3), Probe(4)
    first.add_bar(0, 0x1000, BarKind.MEM32, Registers(1))
    second.add_bar(0, 0x4000, BarKind.MEM32, Registers(2))
    first.add_msix(1, 2)
    second.add_msix(1, 200)
    setup = Setup(first, second)
    setup.write(first, BAR0, ONES)
    setup.write(second, BAR0, ONES)
    assert setup.read(first, BAR0) == 0xFFFF_F000
    assert setup.read(second, BAR0) == 0xFFFF_C000
    assert first.msix is not None
    assert second.msix is not None
    assert (first.msix.vectors, second.msix.vectors) == (2, 200)
    assert setup.capability(first, 0x11) == setup.capability(second, 0x11)


class Model:
    """One 64-bit 4 KiB BAR, written down independently: registers, sizing marks and a command bit."""

    def __init__(self, base: int) -> None:
        self.registers = [base & ONES, base >> 32]
        self.sizing = [False, False]
        self.last = base
        self.decode = True

    def write(self, half: int, value: int) -> None:
        self.registers[half] = value & (0xFFFF_F000 if half == 0 else ONES)
        self.sizing[half] = value == ONES
        if not any(self.sizing):
            self.last = self.registers[0] | self.registers[1] << 32

    @property
    def address(self) -> int | None:
        return self.last if self.decode and 0 < self.last <= (1 << 52) - 0x1000 else None


STEPS = st.one_of(
    st.tuples(st.just("bar"), st.integers(0, 1), st.sampled_from([ONES, 0, 0x1000, 0x9000_0004, 0xFFFF_F000, 0x7F])),
    st.tuples(st.just("bar"), st.integers(0, 1), st.integers(0, ONES)),
    st.tuples(st.just("command"), st.integers(0, 1), st.just(0)),
)


@given(steps=st.lists(STEPS, max_size=40))
def test_bar_follows_the_model_under_any_sequence(steps: list[tuple[str, int, int]]) -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    model = Model(function.bars[0].base)
    for what, n, value in steps:
        if what == "bar":
            model.write(n, value)
            setup.write(function, BAR0 + 4 * n, value)
        else:
            model.decode = bool(n)
            setup.write(function, COMMAND, 2 * n, 2)
        here = [r.base for r in setup.mmio._ranges if r.name.endswith("BAR0")]
        assert here == ([] if model.address is None else [model.address])
        assert setup.read(function, BAR0) == model.registers[0] | 4
        assert setup.read(function, BAR1) == model.registers[1]
    mapped = [c for c in function.calls if c[0] in ("mapped", "unmapped")]
    assert all(a[0] != b[0] for a, b in itertools.pairwise(mapped)), "calls must alternate"


def test_reset_during_sizing_of_one_half_frees_the_other() -> None:
    setup, function, _ = one_bar(BarKind.MEM64)
    setup.write(function, BAR0, ONES)
    with function.lock:
        function.reset()
    setup.write(function, BAR1, 0x40)
    assert function.bars[0].base == 0x40_8000_0000
