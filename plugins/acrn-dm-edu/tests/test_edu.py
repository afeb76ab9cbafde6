"""The educational device under a driver, without a virtual machine."""

import math
import threading
from collections.abc import Iterator

import acrn_dm_edu
import pytest

from acrn_dm import ConfigError
from acrn_dm.testing import GuestFunction, SimMachine, assert_device_conforms

IDENT, LIVENESS, FACTORIAL, STATUS, PENDING, RAISE, ACKNOWLEDGE = 0x00, 0x04, 0x08, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
BUFFER, RAM = 0x4_0000, 0x30_0000
COMMAND_REGISTER, MASTER = 0x04, 4


class Card:
    """The device in slot 3 of a machine, in a driver's hands."""

    def __init__(self, m: SimMachine, options: str = "") -> None:
        self.machine = m
        m.add("edu", options, slot=3)
        self.function: GuestFunction = m.function(3)

    def read(self, offset: int, size: int = 4) -> int:
        return self.function.bar_read(0, offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.function.bar_write(0, offset, size, value)

    def transfer(self, source: int, destination: int, count: int, command: int) -> None:
        for offset, value in ((SOURCE, source), (DESTINATION, destination), (COUNT, count), (COMMAND, command)):
            self.write(offset, value, 8)
        assert self.read(COMMAND) & 1
        self.machine.settle()
        assert not self.read(COMMAND) & 1

    @property
    def line(self) -> bool:
        pin = self.function.read(0x3D, 1) - 1
        routes = {(slot, p): gsi for slot, p, gsi in self.machine.bus.prt()}
        return self.machine.vm.line(routes[3, pin])

    @property
    def messages(self) -> int:
        self.machine.take_interrupts()
        return sum(self.machine.interrupts.values())


@pytest.fixture
def card() -> Iterator[Card]:
    with SimMachine(plugins=[acrn_dm_edu]) as m:
        yield Card(m)


def test_device_conforms() -> None:
    kind = next(iter(acrn_dm_edu.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(kind, slot=3))


def test_card_is_the_one_that_drivers_look_for(card: Card) -> None:
    assert (card.function.read(0, 2), card.function.read(2, 2), card.read(IDENT)) == (0x1234, 0x11E8, 0x010000ED)
    assert card.function.bars[0].size == 1 << 20


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF, 0x12345678])
def test_liveness_is_the_complement(card: Card, value: int) -> None:
    card.write(LIVENESS, value)
    assert card.read(LIVENESS) == ~value & 0xFFFFFFFF


@pytest.mark.parametrize("number", [0, 1, 5, 12, 13, 33, 34, 35, 0xFFFFFFFF])
def test_factorial_takes_the_place_of_its_number(card: Card, number: int) -> None:
    card.write(FACTORIAL, number)
    assert card.read(STATUS) & 1
    card.machine.settle()
    assert not card.read(STATUS) & 1
    assert card.read(FACTORIAL) == math.factorial(min(number, 40)) % 2**32


def test_number_that_comes_while_another_is_computed_is_ignored(card: Card) -> None:
    card.write(FACTORIAL, 5)
    card.write(FACTORIAL, 3)
    card.machine.settle()
    assert card.read(FACTORIAL) == 120


def test_factorial_interrupts_if_it_was_asked_to(card: Card) -> None:
    card.write(FACTORIAL, 5)
    card.machine.settle()
    assert not card.line
    card.write(STATUS, 0x80)
    card.write(FACTORIAL, 5)
    assert not card.line
    card.machine.settle()
    assert card.line
    assert card.read(PENDING) == 1


def test_status_keeps_what_is_read_only(card: Card) -> None:
    card.write(STATUS, 0xFFFFFFFF)
    assert card.read(STATUS) == 0x80
    card.write(STATUS, 0)
    assert card.read(STATUS) == 0


def test_line_is_asserted_until_every_bit_is_acknowledged(card: Card) -> None:
    card.write(RAISE, 0x11)
    assert card.line
    assert card.function.interrupt_status
    card.write(ACKNOWLEDGE, 0x10)
    assert card.line
    assert card.read(PENDING) == 1
    card.write(ACKNOWLEDGE, 0xFFFFFFFF)
    assert not card.line


def test_message_is_sent_for_each_raise_and_the_line_stays_low(card: Card) -> None:
    card.function.enable_msi()
    card.write(RAISE, 1)
    card.write(RAISE, 1)
    assert card.messages == 2
    assert not card.line
    card.function.enable_msi(False)
    assert card.line  # it was not acknowledged


def test_raise_of_nothing_is_nothing(card: Card) -> None:
    card.function.enable_msi()
    card.write(RAISE, 0)
    assert card.messages == 0


def test_dma_reaches_the_device_and_comes_back(card: Card) -> None:
    card.machine.memory.write(RAM, bytes(range(100)))
    card.transfer(RAM, BUFFER, 100, 1)
    card.transfer(BUFFER + 10, RAM + 100, 90, 3)
    assert card.machine.memory.read(RAM + 100, 91) == bytes(range(10, 100)) + b"\0"


def test_dma_interrupts_if_it_was_asked_to(card: Card) -> None:
    card.transfer(RAM, BUFFER, 4, 1)
    assert card.read(PENDING) == 0
    card.transfer(RAM, BUFFER, 4, 5)
    assert card.read(PENDING) == 0x100


def test_address_bits_above_the_mask_are_not_driven(card: Card) -> None:
    card.machine.memory.write(RAM, b"here")
    card.transfer(1 << 40 | 1 << 28 | RAM, BUFFER, 4, 1)
    card.transfer(BUFFER, RAM + 8, 4, 3)
    assert card.machine.memory.read(RAM + 8, 4) == b"here"


def test_mask_may_be_an_option() -> None:
    with SimMachine(plugins=[acrn_dm_edu]) as m:
        card = Card(m, "dma_mask=0xffff")
        m.memory.write(0x1000, b"low")
        card.transfer(0x3_1000, BUFFER, 3, 1)
        card.transfer(BUFFER, 0x2000, 3, 3)
        assert m.memory.read(0x2000, 3) == b"low"


@pytest.mark.parametrize(
    ("source", "destination", "count", "command"),
    [
        (RAM, BUFFER - 1, 4, 1),
        (RAM, BUFFER + 4093, 4, 1),
        (RAM, BUFFER, 4097, 1),
        (RAM, BUFFER, 2**64 - 1, 1),
        (RAM, 2**64 - 1, 2, 1),
        (16 << 20, BUFFER, 4, 1),
        (BUFFER, (16 << 20) - 1, 2, 3),
        (BUFFER + 4096, RAM, 1, 3),
        (0x0800_0000, BUFFER, 4, 1),
    ],
)
def test_transfer_out_of_bounds_moves_nothing_and_ends(
    card: Card, source: int, destination: int, count: int, command: int
) -> None:
    card.machine.memory.write(RAM, b"safe")
    card.transfer(RAM, BUFFER, 4, 1)
    card.transfer(source, destination, count, command | 4)
    assert card.read(PENDING) == 0x100
    card.transfer(BUFFER, RAM + 4, 4, 3)
    assert card.machine.memory.read(RAM, 8) == b"safesafe"
    assert card.machine.memory.read((16 << 20) - 1, 1) == b"\0"


def test_transfer_without_bus_mastering_moves_nothing(card: Card) -> None:
    command = card.function.read(COMMAND_REGISTER, 2)
    card.machine.memory.write(RAM, b"data")
    card.function.write(COMMAND_REGISTER, 2, command & ~MASTER)
    card.transfer(RAM, BUFFER, 4, 1)
    card.function.write(COMMAND_REGISTER, 2, command)
    card.transfer(BUFFER, RAM, 4, 3)
    assert card.machine.memory.read(RAM, 4) == bytes(4)


def test_transfer_under_way_can_not_be_changed(card: Card) -> None:
    card.machine.memory.write(RAM, b"data")
    for offset, value in ((SOURCE, RAM), (DESTINATION, BUFFER), (COUNT, 4), (COMMAND, 1)):
        card.write(offset, value, 8)
    for offset in (SOURCE, DESTINATION, COUNT, COMMAND):
        card.write(offset, 0xFF, 8)
    card.machine.settle()
    assert (card.read(SOURCE), card.read(DESTINATION), card.read(COUNT)) == (RAM, BUFFER, 4)
    card.transfer(BUFFER, RAM + 4, 4, 3)
    assert card.machine.memory.read(RAM + 4, 4) == b"data"


def test_reset_ends_what_is_under_way(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    card.write(STATUS, 0x80)
    card.write(FACTORIAL, 5)
    for offset, value in ((SOURCE, BUFFER), (DESTINATION, RAM), (COUNT, 4), (COMMAND, 7)):
        card.write(offset, value, 8)
    card.machine.memory.write(RAM, b"keep")
    card.machine.bus.functions[-1].reset()
    card.machine.settle()
    assert card.machine.memory.read(RAM, 4) == b"keep"
    assert [card.read(at) for at in (FACTORIAL, STATUS, PENDING, COMMAND)] == [0] * 4
    assert not card.line
    assert not caplog.records


class SlowMemory:
    """Memory in another process, whose guest looks at a register before it answers."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.seen: list[tuple[int, bool]] = []

    def read(self, gpa: int, length: int) -> bytes:
        looked: list[int] = []
        guest = threading.Thread(target=lambda: looked.append(self.card.read(COMMAND)), daemon=True)
        guest.start()
        guest.join(10)
        quiet = bool(looked) and self.card.machine.bus.functions[-1].quiesce()
        self.seen.append((looked[0] if looked else -1, quiet))
        return b"late"


def test_registers_answer_while_memory_does_not(card: Card) -> None:
    function = card.machine.bus.functions[-1]
    card.read(COMMAND)
    memory = function._memory = SlowMemory(card)  # type: ignore[attr-defined]
    for offset, value in ((SOURCE, RAM), (DESTINATION, BUFFER), (COUNT, 4), (COMMAND, 5)):
        card.write(offset, value, 8)
    card.machine.settle()
    assert memory.seen == [(5, False)]  # a reset that begins meanwhile waits for the memory, and ends the transfer
    assert function.quiesce()
    assert (card.read(PENDING), bytes(function.buffer[:4])) == (0, bytes(4))  # type: ignore[attr-defined]


def test_latency_lets_the_guest_see_a_job_under_way() -> None:
    with SimMachine(plugins=[acrn_dm_edu]) as m:
        card = Card(m, "latency=1000")
        card.write(FACTORIAL, 5)
        m.settle()
        assert card.read(STATUS) == 1


@pytest.mark.parametrize("size", [1, 2, 8])
def test_access_of_another_size_is_none(card: Card, size: int) -> None:
    card.write(LIVENESS, 1)
    card.write(LIVENESS, 0, size)
    assert card.read(LIVENESS) == ~1 & 0xFFFFFFFF
    assert card.read(LIVENESS, size) == 2 ** (8 * size) - 1


def test_wide_registers_take_both_sizes(card: Card) -> None:
    card.write(SOURCE, 0x1_0000_0002, 8)
    assert (card.read(SOURCE, 8), card.read(SOURCE), card.read(SOURCE, 2)) == (0x1_0000_0002, 2, 0xFFFF)
    card.write(SOURCE, 5)
    assert card.read(SOURCE, 8) == 5


def test_everything_else_reads_as_ones_and_takes_nothing(card: Card) -> None:
    known = {IDENT, LIVENESS, FACTORIAL, STATUS, PENDING, SOURCE, DESTINATION, COUNT, COMMAND}
    for offset in [*range(0x200), BUFFER, (1 << 20) - 4]:
        card.write(offset, 0)
        if offset not in known:
            assert card.read(offset) == 0xFFFFFFFF


@pytest.mark.parametrize("text", ["dma_mask=0", "dma_mask=0x1ffffffffffffffff", "latency=-1", "latency=1e9", "mask=1"])
def test_options_that_can_not_be_are_named(text: str) -> None:
    with SimMachine(plugins=[acrn_dm_edu]) as m, pytest.raises(ConfigError):
        m.add("edu", text, slot=3)
