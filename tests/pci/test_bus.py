"""The PCI bus: places, windows, and the ways to configuration space."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.types import Bdf
from acrn_dm.pci.bar import BarKind
from acrn_dm.pci.bus import PciBus
from tests.pci.parts import COMMAND, Probe, Registers, Setup

ONES = 0xFFFF_FFFF


def with_bar(slot: int, size: int, kind: BarKind) -> Probe:
    function = Probe(slot)
    function.add_bar(0, size, kind, Registers())
    return function


def select(setup: Setup, slot: int, reg: int, *, func: int = 0, bus: int = 0) -> None:
    setup.pio.write(0xCF8, 4, 1 << 31 | bus << 16 | slot << 11 | func << 8 | reg)


def test_taken_slot_is_a_config_error_that_names_both() -> None:
    bus = PciBus()
    bus.add(Probe(3, kind="first"))
    with pytest.raises(ConfigError, match=r"-s: '0:3.0,second'.*taken by first"):
        bus.add(Probe(3, kind="second"))


def test_second_of_a_kind_there_is_one_of_is_a_config_error() -> None:
    class Only(Probe):
        one_only = True

    bus = PciBus()
    bus.add(Only(3))
    with pytest.raises(ConfigError, match="one probe only"):
        bus.add(Only(4))


def test_functions_come_in_order_of_their_places() -> None:
    functions = [Probe(5), Probe(3, 1), Probe(3), Probe(1, bus=1)]
    setup = Setup(*functions)
    assert [str(f.context.bdf) for f in setup.bus.functions] == ["0:3.0", "0:3.1", "0:5.0", "1:1.0"]
    assert setup.bus.find(Bdf(slot=5)) is functions[0]
    assert setup.bus.find(Bdf(slot=6)) is None


def test_first_bar_of_each_kind_starts_its_window() -> None:
    functions = [
        with_bar(1, 0x20, BarKind.IO),
        with_bar(2, 0x100, BarKind.MEM32),
        with_bar(3, 64 << 20, BarKind.MEM64),
    ]
    Setup(*functions)
    assert [f.bars[0].base for f in functions] == [0x2000, 0x8000_0000, 0x40_0000_0000]


def test_64_bit_bar_up_to_32_mib_goes_below_4g_and_is_not_prefetchable() -> None:
    function = with_bar(2, 32 << 20, BarKind.MEM64)
    setup = Setup(function)
    assert function.bars[0].base == 0x8000_0000
    assert setup.read(function, 0x10) == 0x8000_0004


def test_larger_64_bit_bar_is_prefetchable() -> None:
    function = with_bar(2, 64 << 20, BarKind.MEM64)
    setup = Setup(function)
    assert setup.read(function, 0x10) == 0xC
    assert setup.read(function, 0x14) == 0x40


def test_memory_bars_do_not_share_a_page() -> None:
    functions = [with_bar(slot, 16, BarKind.MEM32) for slot in (1, 2)]
    Setup(*functions)
    assert [f.bars[0].base for f in functions] == [0x8000_0000, 0x8000_1000]


def test_bars_are_naturally_aligned_and_do_not_overlap() -> None:
    sizes = [0x10, 0x4000, 0x20, 0x100000, 0x1000]
    functions = [with_bar(slot, size, BarKind.MEM32) for slot, size in enumerate(sizes)]
    Setup(*functions)
    spans = sorted((f.bars[0].base, f.bars[0].size) for f in functions)
    assert all(base % size == 0 for base, size in spans)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))


def test_more_than_14_io_bars_fit() -> None:
    functions = [with_bar(slot, 64, BarKind.IO) for slot in range(32)]
    Setup(*functions)
    assert functions[31].bars[0].base == 0x2000 + 31 * 64


@pytest.mark.parametrize(
    ("size", "kind", "window"),
    [(0x8000, BarKind.IO, "I/O"), (1 << 30, BarKind.MEM32, "32-bit"), (1 << 38, BarKind.MEM64, "64-bit")],
)
def test_full_window_is_a_config_error_that_names_the_device(size: int, kind: BarKind, window: str) -> None:
    with pytest.raises(ConfigError, match=rf"-s: '0:2.0,probe'.*{window}"):
        Setup(with_bar(1, size, kind), with_bar(2, size, kind))


def test_function_that_is_not_there_reads_ones() -> None:
    setup = Setup(Probe(3))
    assert setup.bus.config_read(Bdf(slot=4), 0, 4) == ONES
    assert setup.bus.config_read(Bdf(slot=3, func=1), 0, 2) == 0xFFFF
    setup.bus.config_write(Bdf(slot=4), 4, 4, 0)


@pytest.mark.parametrize(("reg", "size"), [(1, 2), (2, 4), (0, 3), (0, 5), (0, 8), (0, 0), (255, 2)])
def test_row_50_odd_configuration_accesses_read_ones_and_write_nothing(reg: int, size: int) -> None:
    function = Probe()
    setup = Setup(function)
    before = [setup.read(function, r) for r in range(0, 256, 4)]
    assert setup.read(function, reg, size) == (1 << (8 * size)) - 1
    setup.write(function, reg, 0, size)
    assert [setup.read(function, r) for r in range(0, 256, 4)] == before


def test_there_is_no_extended_space() -> None:
    """An empty list at 0x100 instead costs a Linux guest one request for each extended capability it knows."""
    function = Probe()
    setup = Setup(function)
    assert [setup.read(function, reg) for reg in (0x100, 0x104, 0xFFC)] == [ONES, ONES, ONES]
    assert setup.read(function, 0x102, 2) == ONES & 0xFFFF
    setup.write(function, 0x100, 1)
    assert setup.read(function, 0x100) == ONES


def test_multi_function_bit_is_set_on_every_function_of_such_a_slot() -> None:
    functions = [Probe(3, 0), Probe(3, 1), Probe(4)]
    setup = Setup(*functions)
    assert [setup.read(f, 0x0E, 1) for f in functions] == [0x80, 0x80, 0]
    with functions[0].lock:
        functions[0].reset()
    assert setup.read(functions[0], 0x0E, 1) == 0x80


def test_ports_read_what_the_latch_selects() -> None:
    setup = Setup(Probe(3))
    select(setup, 3, 0x00)
    assert setup.pio.read(0xCFC, 4) == 0x1003_1AF4
    assert setup.pio.read(0xCFE, 2) == 0x1003
    assert setup.pio.read(0xCFD, 1) == 0x1A
    assert setup.pio.read(0xCF8, 4) == 0x8000_1800


def test_ports_keep_the_latch_over_data_accesses() -> None:
    setup = Setup(Probe(3))
    select(setup, 3, 0)
    assert setup.pio.read(0xCFC, 4) == setup.pio.read(0xCFC, 4) != ONES


def test_ports_write_what_the_latch_selects() -> None:
    function = Probe(3)
    setup = Setup(function)
    select(setup, 3, 0x3C)
    setup.pio.write(0xCFC, 1, 0x0A)
    assert setup.read(function, 0x3C, 1) == 0x0A


def test_ports_with_the_latch_disabled_read_ones_and_write_nothing() -> None:
    function = Probe(3)
    setup = Setup(function)
    setup.pio.write(0xCF8, 4, 3 << 11 | 4)
    assert setup.pio.read(0xCFC, 4) == ONES
    setup.pio.write(0xCFC, 4, 0)
    assert setup.read(function, COMMAND, 2) == 7


def test_ports_latch_takes_4_byte_writes_only_as_linux_probes() -> None:
    setup = Setup(Probe(3))
    setup.pio.write(0xCFB, 1, 1)
    setup.pio.write(0xCF8, 4, 0x8000_0000)
    setup.pio.write(0xCF8, 2, 0x1234)
    assert setup.pio.read(0xCF8, 4) == 0x8000_0000
    assert setup.pio.read(0xCF8, 1) == 0xFF


def test_ports_reset_control_byte_inside_the_latch_belongs_to_its_owner() -> None:
    setup = Setup(Probe(3))
    control = Registers(0x06)
    setup.pio.register(0xCF9, 1, control, "reset control")
    setup.pio.write(0xCF9, 1, 0x0E)
    select(setup, 3, 0)
    assert setup.pio.read(0xCF9, 1) == 0x06
    assert setup.pio.read(0xCFC, 2) == 0x1AF4
    assert control.writes == [(0, 1, 0x0E)]


def test_ports_bits_27_to_24_extend_the_register() -> None:
    setup = Setup(Probe(3))
    setup.pio.write(0xCF8, 4, 1 << 31 | 1 << 24 | 3 << 11)
    assert setup.pio.read(0xCFC, 4) == ONES


def test_ports_access_across_their_end_reads_ones() -> None:
    setup = Setup(Probe(3))
    select(setup, 3, 0)
    assert setup.pio.read(0xCFF, 2) == 0xFFFF
    assert setup.pio.read(0xCFD, 2) == 0xFFFF, "unaligned"


def test_reset_clears_the_latch() -> None:
    setup = Setup(Probe(3))
    select(setup, 3, 0)
    setup.bus.reset()
    assert setup.pio.read(0xCF8, 4) == 0


def test_ecam_reads_and_writes_the_same_registers() -> None:
    function = Probe(3, 1)
    setup = Setup(function, Probe(3))
    at = 0xE000_0000 | 3 << 15 | 1 << 12
    assert setup.mmio.read(at, 4) == 0x1003_1AF4
    assert setup.mmio.read(at + 2, 2) == 0x1003
    setup.mmio.write(at + 0x3C, 1, 7)
    assert setup.read(function, 0x3C, 1) == 7


def test_ecam_splits_8_bytes() -> None:
    function = Probe(3)
    function.add_bar(0, 0x1000, BarKind.MEM64, Registers())
    setup = Setup(function)
    at = 0xE000_0000 | 3 << 15
    assert setup.mmio.read(at, 8) == setup.read(function, 0) | setup.read(function, 4) << 32
    setup.mmio.write(at + 0x10, 8, 0x40_1234_5000)
    assert function.bars[0].base == 0x40_1234_5000


def test_ecam_ends_behind_the_last_bus() -> None:
    one, two = Setup(Probe(3)), Setup(Probe(3), Probe(2, bus=1))
    assert one.bus.last_bus == 0
    assert one.mmio.read(0xE010_0000, 4) == ONES
    assert one.mmio.find(0xE010_0000, 4) is None
    assert two.bus.last_bus == 1
    assert two.mmio.read(0xE010_0000 | 2 << 15, 4) == 0x1002_1AF4


def test_accesses_are_counted() -> None:
    setup = Setup(Probe(3))
    before = setup.bus.config_accesses
    setup.bus.config_read(Bdf(slot=3), 0, 4)
    setup.bus.config_write(Bdf(slot=9), 0, 4, 0)
    assert setup.bus.config_accesses == before + 2


def test_bars_answer_from_attach_on() -> None:
    function = with_bar(3, 0x1000, BarKind.MEM32)
    setup = Setup(function)
    assert function.calls == [("mapped", 0, 0x8000_0000)]
    assert setup.mmio.find(0x8000_0000, 4) is not None


@given(
    accesses=st.lists(
        st.tuples(
            st.sampled_from(["pio", "mmio"]), st.integers(0, 0xF_FFFF), st.sampled_from([1, 2, 4]), st.integers(0, ONES)
        ),
        max_size=40,
    )
)
def test_any_access_to_the_configuration_ways_never_raises(accesses: list[tuple[str, int, int, int]]) -> None:
    function = with_bar(3, 0x20, BarKind.IO)
    function.add_msix(1, 2)
    function.use_intx()
    setup = Setup(function, Probe(3, 1))
    for space, where, size, value in accesses:
        bus, addr = (setup.pio, 0xCF8 + where % 8) if space == "pio" else (setup.mmio, 0xE000_0000 + where)
        bus.write(addr, size, value & ((1 << (8 * size)) - 1))
        assert 0 <= bus.read(addr, size) < 1 << (8 * size)
    assert setup.read(function, 0) == 0x1003_1AF4
