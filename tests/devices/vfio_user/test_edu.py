"""Our own ``edu`` behind ``vfio-user``: to a driver it is what it is without another process."""

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing import GuestFunction, SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.remote_rig import SLOT, attached

LIVENESS, FACTORIAL, STATUS, PENDING, RAISE, ACKNOWLEDGE = 0x04, 0x08, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
BUFFER, RAM = 0x4_0000, 0x30_0000


@attrs.frozen
class Card:
    """The card in a driver's hands."""

    machine: SimMachine

    @property
    def function(self) -> GuestFunction:
        return self.machine.function(SLOT)

    def read(self, offset: int, size: int = 4) -> int:
        return self.function.bar_read(0, offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.function.bar_write(0, offset, size, value)

    def transfer(self, source: int, destination: int, count: int, command: int) -> None:
        for offset, value in ((SOURCE, source), (DESTINATION, destination), (COUNT, count), (COMMAND, command)):
            self.write(offset, value, 8)
        eventually(self.machine, lambda: not self.read(COMMAND) & 1)

    @property
    def line(self) -> bool:
        pin = self.function.read(0x3D, 1) - 1
        routes = {(slot, p): gsi for slot, p, gsi in self.machine.bus.prt()}
        return self.machine.vm.line(routes[SLOT, pin])


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    with attached("edu", tmp_path / "s") as machine:
        machine.start()
        yield Card(machine)


def test_driver_finds_its_identity_and_its_bar(card: Card) -> None:
    assert card.function.read(0, 4) == 0x11E8_1234
    assert card.function.read(8, 4) == 0x00FF_0010
    assert {index: bar.size for index, bar in card.function.bars.items()} == {0: 1 << 20}
    assert [capability.id for capability in card.function.walk_capabilities()] == [5]


def test_registers_are_its_own(card: Card) -> None:
    assert card.read(0) == 0x0100_00ED
    card.write(LIVENESS, 0x1234_5678)
    assert card.read(LIVENESS) == 0xEDCB_A987
    card.write(FACTORIAL, 10)
    eventually(card.machine, lambda: not card.read(STATUS) & 1)
    assert card.read(FACTORIAL) == 3_628_800


def test_it_moves_the_guest_s_memory(card: Card) -> None:
    card.machine.memory.write(RAM, bytes(range(100)))
    card.transfer(RAM, BUFFER, 100, 1)
    card.transfer(BUFFER, RAM + 0x1000, 100, 3)
    assert card.machine.memory.read(RAM + 0x1000, 100) == bytes(range(100))


def test_pin_is_asserted_until_it_is_acknowledged(card: Card) -> None:
    card.write(RAISE, 1)
    eventually(card.machine, lambda: card.line)
    assert card.function.interrupt_status
    assert card.read(PENDING) == 1  # the driver looks, and it asks still
    eventually(card.machine, lambda: card.line)
    card.write(ACKNOWLEDGE, 1)
    eventually(card.machine, lambda: not card.line)
    card.machine.settle()
    assert not card.line


def test_message_arrives_as_the_guest_composed_it(card: Card) -> None:
    card.function.enable_msi()
    for count in (1, 2):
        card.write(RAISE, 1)
        eventually(
            card.machine,
            lambda count=count: card.machine.interrupts[card.function.msi_data] == count,  # type: ignore[misc]
        )
    assert not card.line
    card.function.enable_msi(False)
    card.write(ACKNOWLEDGE, 1)
    card.write(RAISE, 2)
    eventually(card.machine, lambda: card.line)
    assert card.machine.interrupts.total() == 2


def test_reset_of_the_machine_is_one_of_the_card(card: Card) -> None:
    card.write(LIVENESS, 1)
    card.function.write(0x3C, 1, 7)
    card.machine.reset()
    assert card.read(LIVENESS) == 0
    card.write(RAISE, 1)
    eventually(card.machine, lambda: card.line)


def test_bar_answers_where_the_guest_puts_it(card: Card) -> None:
    card.function.move_bar(0, 0xC000_0000)
    assert card.read(0) == 0x0100_00ED
    card.function.write(4, 2, 0)
    assert card.read(0) == 0xFFFF_FFFF
