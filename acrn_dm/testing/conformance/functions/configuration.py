"""Rules of a PCI function's configuration space (PCI Local Bus 3.0, 6.1 to 6.3 and 6.7; PCI Express 7.2)."""

from acrn_dm.pci.layout import ECAM_BASE
from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.conformance.subject import SLOT
from acrn_dm.testing.conformance.table import NotApplicable
from acrn_dm.testing.guest_pci import CAPABILITIES, COMMAND, STATUS, GuestFunction

PCI = ("pci",)
ID, CLASS, HEADER_TYPE, SUBSYSTEM, CARDBUS, INTERRUPT_LINE, INTERRUPT_PIN = 0x00, 0x08, 0x0E, 0x2C, 0x28, 0x3C, 0x3D
READ_ONLY = ((ID, 4), (CLASS, 4), (HEADER_TYPE, 1), (SUBSYSTEM, 4), (CAPABILITIES, 1), (INTERRUPT_PIN, 1))
RESERVED = ((0x35, 1), (0x36, 2), (0x38, 4))
COMMAND_RESERVED = 0xF800
STATUS_CAPABILITIES, STATUS_ERRORS = 1 << 4, 0xF900
LAST_CAPABILITY = 0xFC
CONFIG_END, EXTENDED_END = 0x100, 0x1000
CAP_EXPRESS = 0x10
ALL_ONES = 0xFFFF_FFFF


def _dump(function: GuestFunction) -> list[int]:
    return [function.read(at, 4) for at in range(0, CONFIG_END, 4)]


@rule("pcifn.ids", kinds=PCI)
def ids_are_somebodys(bench: Bench) -> None:
    read = bench.function.read
    assert read(0, 2) not in (0, 0xFFFF), f"the vendor id is {read(0, 2):#x}"
    assert read(2, 2) not in (0, 0xFFFF), f"the device id is {read(2, 2):#x}"
    assert read(0xB, 1) or read(0xA, 1) or read(9, 1), "the class code is 0"


@rule("pcifn.header", kinds=PCI)
def header_is_a_devices(bench: Bench) -> None:
    kind = bench.function.read(HEADER_TYPE, 1) & 0x7F
    assert kind == 0, f"the header is of type {kind}, of which there is none in this slot"
    assert bench.function.read(CARDBUS, 4) == 0, "a CardBus pointer"


@rule("pcifn.readonly", kinds=PCI)
def read_only_registers_stay(bench: Bench) -> None:
    function = bench.function
    for at, size in READ_ONLY:
        before = function.read(at, size)
        for value in (0, (1 << 8 * size) - 1, 0x5A5A_5A5A & ((1 << 8 * size) - 1)):
            function.write(at, size, value)
            assert function.read(at, size) == before, f"register {at:#x} is read-only, and changes to {value:#x}"


@rule("pcifn.reserved", kinds=PCI)
def reserved_registers_read_as_zero(bench: Bench) -> None:
    function = bench.function
    for at, size in RESERVED:
        function.write(at, size, (1 << 8 * size) - 1)
        assert function.read(at, size) == 0, f"reserved register {at:#x} reads {function.read(at, size):#x}"


@rule("pcifn.command", kinds=PCI)
def command_bits_are_stored_or_zero(bench: Bench) -> None:
    function = bench.function
    found = function.read(COMMAND, 2)
    function.write(COMMAND, 2, 0xFFFF)
    able = function.read(COMMAND, 2)
    assert not able & COMMAND_RESERVED, f"reserved command bits read {able & COMMAND_RESERVED:#x}"
    for bit in range(11):
        function.write(COMMAND, 2, 1 << bit)
        found_bit = function.read(COMMAND, 2)
        assert found_bit == able & 1 << bit, f"command {1 << bit:#x} reads {found_bit:#x}"
    function.write(COMMAND, 2, 0)
    assert function.read(COMMAND, 2) == 0, "the command register can't be cleared"
    spaces = sum(2 - bar.io for bar in {bar.io: bar for bar in function.bars.values()}.values())
    assert able & spaces == spaces, f"BARs whose decoding can't be switched: command can be {able:#x}"
    function.write(COMMAND, 2, found)


@rule("pcifn.status", kinds=PCI)
def status_bits_are_cleared_at_most(bench: Bench) -> None:
    function = bench.function
    before = function.read(STATUS, 2)
    function.write(STATUS, 2, 0xFFFF)
    assert function.read(STATUS, 2) == before & ~STATUS_ERRORS, "writing ones to status does more than to clear errors"
    function.write(STATUS, 2, 0)
    assert function.read(STATUS, 2) == before & ~STATUS_ERRORS, "writing zeroes to status does something"


@rule("pcifn.caps", kinds=PCI)
def capabilities_are_a_list(bench: Bench) -> None:
    function = bench.function
    seen: list[int] = []
    at = function.read(CAPABILITIES, 1)
    while at:
        assert at % 4 == 0, f"a capability at {at:#x}, which is not aligned"
        assert 0x40 <= at <= LAST_CAPABILITY, f"a capability at {at:#x}"
        assert at not in seen, f"the list of capabilities comes back to {at:#x}"
        seen.append(at)
        assert function.read(at, 1) not in (0, 0xFF), f"capability {function.read(at, 1):#x} at {at:#x}"
        at = function.read(at + 1, 1)


@rule("pcifn.caps.status", kinds=PCI)
def status_says_whether_there_are_capabilities(bench: Bench) -> None:
    told = bool(bench.function.read(STATUS, 2) & STATUS_CAPABILITIES)
    there = bool(bench.function.read(CAPABILITIES, 1))
    assert told == there, f"status says {told} of capabilities, their pointer {there}"


@rule("pcifn.config.width", kinds=PCI)
def accesses_of_any_width_mean_the_same(bench: Bench) -> None:
    function = bench.function
    for at in range(0, CONFIG_END, 4):
        whole = function.read(at, 4)
        words = function.read(at, 2) | function.read(at + 2, 2) << 16
        single = sum(function.read(at + n, 1) << 8 * n for n in range(4))
        assert whole == words == single, f"register {at:#x} reads {whole:#x}, by words {words:#x}, by bytes {single:#x}"
    before = function.read(INTERRUPT_LINE, 4)
    function.write(INTERRUPT_LINE, 1, (before ^ 0x5A) & 0xFF)
    assert function.read(INTERRUPT_LINE, 4) >> 8 == before >> 8, "a write of one byte changes others"


@rule("pcifn.config.ecam", kinds=PCI)
def both_ways_to_the_configuration_lead_to_the_same(bench: Bench) -> None:
    vm, base = bench.machine.vm, ECAM_BASE + (SLOT << 15)
    by_memory = [vm.mmio_read(base + at, 4) for at in range(0, CONFIG_END, 4)]
    assert by_memory == _dump(bench.function), "the memory-mapped configuration space reads differently"


@rule("pcifn.config.beyond", kinds=PCI)
def extended_configuration_is_an_express_functions(bench: Bench) -> None:
    vm, base = bench.machine.vm, ECAM_BASE + (SLOT << 15)
    express = bench.function.capability(CAP_EXPRESS) is not None
    before = _dump(bench.function)
    for at in (CONFIG_END, CONFIG_END + 4, 0x800, EXTENDED_END - 4):
        vm.mmio_write(base + at, 4, ALL_ONES)
        value = vm.mmio_read(base + at, 4)
        if at == CONFIG_END and express:
            assert value != ALL_ONES, "an Express function has no list of extended capabilities"
        elif not express:
            assert value == ALL_ONES, f"register {at:#x} of a conventional function reads {value:#x}"
    assert _dump(bench.function) == before, "writes behind the configuration space change it"


@rule("pcifn.irq.line", kinds=PCI)
def interrupt_line_is_a_note(bench: Bench) -> None:
    function = bench.function
    if not function.read(INTERRUPT_PIN, 1):
        raise NotApplicable("the function has no interrupt pin")
    for value in (0, 11, 0xFF):
        function.write(INTERRUPT_LINE, 1, value)
        assert function.read(INTERRUPT_LINE, 1) == value, f"interrupt line does not keep {value}"


@rule("pcifn.irq.pin", kinds=PCI)
def interrupt_pin_is_one_that_there_is(bench: Bench) -> None:
    pin = bench.function.read(INTERRUPT_PIN, 1)
    assert pin <= 4, f"the interrupt pin is {pin}"
