"""Device configuration: bounds, widths, generation, change notifications (rows config.*; anchors 48, 62)."""

from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import GuestError
from acrn_dm.testing import SimMachine, VirtioDriver
from tests.virtio.parts import SLOT, Echo, device_of, machine_with

NEEDS_RESET = 64


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with machine_with() as made:
        yield made


@pytest.fixture(params=["modern", "legacy", "legacy without MSI-X"])
def driver(machine: SimMachine, request: pytest.FixtureRequest) -> VirtioDriver:
    if request.param == "modern":
        return machine.driver(SLOT)
    return machine.driver_legacy(SLOT, msix=request.param == "legacy")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_row_48_reads_past_the_end_are_zero(driver: VirtioDriver, size: int) -> None:
    """Anchor 48: access beyond the structure."""
    padded = Echo.config + bytes(16)
    for offset in range(len(Echo.config) + 9):
        assert driver.registers.read_config(offset, size) == int.from_bytes(padded[offset : offset + size], "little")


def test_row_48_writes_past_the_end_are_cut_or_dropped(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.registers.write_config(10, 4, 0x44332211)
    driver.registers.write_config(12, 4, 0x44332211)
    assert device_of(machine).written == [(10, b"\x11\x22")]


def test_configuration_is_readable_before_features_ok(driver: VirtioDriver) -> None:
    driver.reset()
    driver.status = 1
    before = driver.read_config(0, 12)
    driver.start()
    assert before == driver.read_config(0, 12) == Echo.config


@pytest.mark.parametrize("error", [GuestError("no"), RuntimeError("bug"), KeyError(1)])
def test_device_that_raises_in_its_configuration_needs_a_reset_and_reads_zero(error: Exception) -> None:
    class Raising(Echo):
        def read_config(self, offset: int, size: int) -> bytes:
            raise error

    with machine_with(Raising) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.registers.read_config(0, 4) == 0
        assert driver.status & NEEDS_RESET
        machine.settle()
        assert driver.config_interrupts == 1


def test_row_62_no_configuration_interrupt_at_driver_ok(machine: SimMachine) -> None:
    """Anchor 62: spurious change notification."""
    driver = machine.driver(SLOT)
    driver.start()
    assert driver.config_interrupts == 0
    assert driver.registers.read_isr() == 0


def test_change_before_driver_ok_raises_generation_but_no_interrupt(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.negotiate()
    driver.registers.map_vector(None, 0)
    before = driver.registers.read("config_generation")
    device_of(machine).config_changed()
    machine.settle()
    assert driver.registers.read("config_generation") != before
    assert driver.config_interrupts == 0
    assert driver.registers.read_isr() == 0


def test_change_interrupts_on_the_configuration_vector_with_isr_bit_1(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.start()
    device_of(machine).config_changed()
    machine.settle()
    assert driver.config_interrupts == 1
    assert driver.registers.read_isr() == 2


def test_generation_differs_after_each_change_the_driver_could_see(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.start()
    seen = []
    for _ in range(4):
        seen.append(driver.registers.read("config_generation"))
        device_of(machine).config_changed()
    assert len(set(seen)) == 4


def test_generation_does_not_wrap_between_two_looks(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.start()
    before = driver.registers.read("config_generation")
    for _ in range(256):
        device_of(machine).config_changed()
    machine.settle()
    assert driver.registers.read("config_generation") != before


def test_generation_changes_again_when_only_the_configuration_was_read(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.start()
    device_of(machine).config_changed()
    before = driver.registers.read("config_generation")
    driver.registers.read_config(0, 4)
    device_of(machine).config_changed()
    driver.registers.read_config(4, 4)
    assert driver.registers.read("config_generation") != before


def test_change_signalled_before_a_reset_does_not_reach_the_next_driver(machine: SimMachine) -> None:
    driver = machine.driver(SLOT)
    driver.start()
    device_of(machine).config_changed()
    driver.reset()
    driver.negotiate()
    driver.registers.map_vector(None, 0)
    driver.driver_ok()
    machine.settle()
    assert driver.config_interrupts == 0


class Switching(Echo):
    """Its configuration changes under the driver's hands, as another thread's work does it: first the bytes, then the
    word that they changed, which may come much later.
    """

    config = bytes(8)

    def switch(self) -> None:
        self.config = bytes(255 - byte for byte in self.config)


def test_d_cfg_generation_of_changed_bytes_is_new_before_the_device_says_so() -> None:
    """d.cfg.generation: the bytes changed, ``config_changed`` comes later; who reads in between finds out."""
    with machine_with(Switching) as machine:
        driver, device = machine.driver(SLOT), device_of(machine)
        driver.start()
        before = driver.registers.read("config_generation")
        first = driver.registers.read_config(0, 4)
        device.switch()  # type: ignore[attr-defined]
        second = driver.registers.read_config(4, 4)
        assert (first, second) == (0, 0xFFFF_FFFF), "a torn value, which the generation has to betray"
        assert driver.registers.read("config_generation") != before


def test_pci_common_config_generation() -> None:
    """pci.common.config_generation: once the driver has read a changed value the generation differs, each time."""
    with machine_with(Switching) as machine:
        driver, device = machine.driver(SLOT), device_of(machine)
        driver.start()
        for _ in range(300):  # past the wrap of its eight bits
            before = driver.registers.read("config_generation")
            device.switch()  # type: ignore[attr-defined]
            assert driver.registers.read("config_generation") == (before + 1) & 0xFF
            driver.registers.read_config(0, 4)
            assert driver.registers.read("config_generation") == (before + 1) & 0xFF
            device.config_changed()  # late: it may count once more, and must not undo
            machine.settle()


def test_pci_common_config_generation_seen_without_reading_it_first() -> None:
    """pci.common.config_generation: reading the value alone counts as having seen it."""
    with machine_with(Switching) as other:
        driver, device = other.driver(SLOT), device_of(other)
        driver.start()
        driver.registers.read_config(0, 1)
        before = driver.registers.read("config_generation")
        device.switch()  # type: ignore[attr-defined]
        device.switch()  # type: ignore[attr-defined]
        assert driver.registers.read("config_generation") == before, "nobody could see that"
        device.switch()  # type: ignore[attr-defined]
        driver.registers.read_config(7, 1)
        assert driver.registers.read("config_generation") != before
