"""INTx: levels, gates, sharing, and the choice of lines."""

import pytest

from acrn_dm.pci.intx import IntxPin, IntxRouter
from tests.pci.parts import COMMAND, Probe, Setup

INTX_DISABLE = 0x400


def with_pin(slot: int = 3, func: int = 0) -> Probe:
    function = Probe(slot, func)
    function.use_intx()
    return function


def pin(function: Probe) -> IntxPin:
    assert function.intx is not None
    return function.intx


def test_row_63_line_follows_the_level_and_changes_only() -> None:
    function = with_pin()
    setup = Setup(function)
    for level in (True, True, False, False, True):
        pin(function).set(level)
    assert setup.interrupts.levels == [(16, True), (16, False), (16, True)]


def test_row_63_shared_line_stays_up_until_the_last_source_lets_go() -> None:
    functions = [with_pin(slot) for slot in range(3, 6)]
    setup = Setup(*functions, ioapic_pins=17)
    for function in functions:
        pin(function).set(True)
    for function in functions:
        pin(function).set(False)
    assert setup.interrupts.levels == [(16, True), (16, False)]


def test_interrupt_status_bit_follows_the_device() -> None:
    function = with_pin()
    setup = Setup(function)
    pin(function).set(True)
    assert setup.read(function, 0x06, 2) & 8
    assert setup.read(function, 0x04, 4) & 8 << 16
    assert setup.read(function, 0x06, 1) & 8
    assert setup.read(function, 0x04, 2) == 7
    pin(function).set(False)
    assert setup.read(function, 0x06, 2) & 8 == 0


def test_disable_lets_the_line_go_and_keeps_the_status() -> None:
    function = with_pin()
    setup = Setup(function)
    pin(function).set(True)
    setup.write(function, COMMAND, 7 | INTX_DISABLE, 2)
    assert setup.interrupts.levels == [(16, True), (16, False)]
    assert setup.read(function, 0x06, 2) & 8


def test_level_wanted_while_disabled_comes_out_on_enable() -> None:
    function = with_pin()
    setup = Setup(function)
    setup.write(function, COMMAND, 7 | INTX_DISABLE, 2)
    pin(function).set(True)
    assert setup.interrupts.levels == []
    setup.write(function, COMMAND, 7, 2)
    assert setup.interrupts.levels == [(16, True)]


def test_msix_gates_the_pin() -> None:
    function = with_pin()
    function.add_msix(1, 1)
    setup = Setup(function)
    at = setup.capability(function, 0x11)
    pin(function).set(True)
    setup.write(function, at + 2, 0x8000, 2)
    setup.write(function, at + 2, 0, 2)
    assert [level for _, level in setup.interrupts.levels] == [True, False, True]


def test_reset_lets_the_line_go() -> None:
    function = with_pin()
    setup = Setup(function)
    pin(function).set(True)
    with function.lock:
        function.reset()
    assert setup.interrupts.levels == [(16, True), (16, False)]


def test_pin_register_tells_the_pin_and_zero_without_one() -> None:
    first, second, third = with_pin(3, 0), with_pin(3, 1), Probe(4)
    setup = Setup(first, second, third)
    assert [setup.read(f, 0x3D, 1) for f in (first, second, third)] == [1, 2, 0]


def test_lines_are_given_in_order_without_sharing() -> None:
    functions = [with_pin(slot) for slot in (7, 3, 5)]
    setup = Setup(*functions, ioapic_pins=48)
    assert [pin(f).gsi for f in functions] == [18, 16, 17]
    assert setup.bus.prt() == ((3, 0, 16), (5, 0, 17), (7, 0, 18))


def test_fifth_function_of_a_slot_shares_the_first_pin() -> None:
    functions = [with_pin(3, func) for func in range(5)]
    Setup(*functions, ioapic_pins=48)
    assert [pin(f).number for f in functions] == [0, 1, 2, 3, 0]
    assert pin(functions[4]).gsi == pin(functions[0]).gsi


@pytest.mark.parametrize(("pins", "lines"), [(24, 8), (48, 32)])
def test_when_the_ioapic_is_full_lines_are_shared_evenly(pins: int, lines: int) -> None:
    functions = [with_pin(slot, func) for slot in range(20) for func in range(4)]
    setup = Setup(*functions, ioapic_pins=pins)
    used = [pin(f).gsi for f in functions]
    assert used[:lines] == list(range(16, 16 + lines))
    counts = [used.count(gsi) for gsi in range(16, 16 + lines)]
    assert sum(counts) == 80
    assert max(counts) - min(counts) <= 1
    assert len(setup.bus.prt()) == 80


def test_ioapic_without_pins_for_pci_raises() -> None:
    with pytest.raises(ValueError):
        IntxRouter(16)


def test_interrupt_line_is_a_permitted_isa_irq() -> None:
    functions = [with_pin(slot) for slot in range(10)]
    setup = Setup(*functions)
    lines = [setup.read(f, 0x3C, 1) for f in functions]
    assert all(0xDEF8 >> line & 1 for line in lines)
    assert lines[8:] == lines[:2], "eight links, then the first again"
