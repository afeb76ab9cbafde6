"""The PCI_CFG capability: any BAR through the configuration space (rows pci.cfgaccess.*; anchor 46)."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.register_access import find_structures
from tests.virtio.parts import SLOT, device_of, machine_with

PCI_CFG = 5


class Window:
    """The driver's side of the window."""

    def __init__(self, driver: VirtioDriver) -> None:
        self.function = driver.function
        self.at = next(s.at for s in find_structures(driver.function) if s.type == PCI_CFG)

    def aim(self, bar: int, offset: int, length: int) -> None:
        self.function.write(self.at + 4, 1, bar)
        self.function.write(self.at + 8, 4, offset)
        self.function.write(self.at + 12, 4, length)

    def read(self, bar: int, offset: int, length: int) -> int:
        self.aim(bar, offset, length)
        return self.function.read(self.at + 16, length)

    def write(self, bar: int, offset: int, length: int, value: int) -> None:
        self.aim(bar, offset, length)
        self.function.write(self.at + 16, length, value)


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with machine_with() as made:
        yield made


@pytest.fixture
def driver(machine: SimMachine) -> VirtioDriver:
    return machine.driver(SLOT)


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("region", [0x0000, 0x2000])
def test_row_46_reads_equal_direct_access(driver: VirtioDriver, length: int, region: int) -> None:
    window = Window(driver)
    for offset in range(0, 0x38, length):
        direct = driver.function.bar_read(4, region + offset, length)
        assert window.read(4, region + offset, length) == direct


def test_row_46_status_is_readable_and_writable_by_one_byte(driver: VirtioDriver) -> None:
    """Anchor 46: the length was ignored."""
    window = Window(driver)
    window.write(4, 0x14, 1, 1)
    assert driver.status == 1
    assert window.read(4, 0x14, 1) == 1


def test_io_and_msix_bars_are_reachable(driver: VirtioDriver) -> None:
    window = Window(driver)
    assert window.read(0, 0x0C, 2) == 64
    assert window.read(1, 0x08, 4) == driver.function.message_data(0)


def test_window_has_the_side_effects_of_a_real_access(machine: SimMachine, driver: VirtioDriver) -> None:
    window = Window(driver)
    driver.start()
    device_of(machine).config_changed()
    machine.settle()
    assert window.read(4, 0x1000, 1) == 2
    assert driver.registers.read_isr() == 0
    driver.queue(0).send([b"ab"], [2])
    window.write(4, 0x3000, 2, 0)
    machine.settle()
    assert len(driver.queue(0).completed()) == 1


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [
        (4, 0, 0),
        (4, 0, 3),
        (4, 0, 8),
        (4, 1, 2),
        (4, 0x4000, 4),
        (4, 0xFFFF_FFFC, 4),
        (2, 0, 4),
        (5, 0, 4),
        (255, 0, 1),
    ],
)
def test_window_that_points_nowhere_reads_zero_and_swallows_writes(
    machine: SimMachine, driver: VirtioDriver, bar: int, offset: int, length: int
) -> None:
    window = Window(driver)
    window.aim(bar, offset, length)
    window.function.write(window.at + 16, 4, 0xFFFF_FFFF)
    assert window.function.read(window.at + 16, 4) == 0
    assert machine.dispatch.errors == 0


def test_aiming_alone_touches_nothing(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.start()
    device_of(machine).config_changed()
    machine.settle()
    Window(driver).aim(4, 0x1000, 1)
    assert driver.registers.read_isr() == 2
