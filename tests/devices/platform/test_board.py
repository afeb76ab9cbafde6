"""The platform as a whole: who answers which port, and what reaches the machine."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from acrn_dm.base.bus import Bus, pio_bus
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import UartSpec
from acrn_dm.devices.platform import Platform, PlatformCallbacks
from acrn_dm.testing import VirtualClock


class Interrupts:
    def __init__(self) -> None:
        self.levels: list[tuple[int, bool]] = []

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        self.levels.append((gsi, asserted))


class Rig:
    """A realized platform and the list of what it asked of the machine."""

    def __init__(self, *uarts: UartSpec, debugexit: bool = False) -> None:
        self.asked: list[Any] = []
        callbacks = PlatformCallbacks(
            poweroff=lambda sci_kept: self.asked.append("poweroff"),
            reset=lambda full: self.asked.append(("reset", full)),
            suspend=lambda: self.asked.append("suspend"),
            debug_exit=lambda code: self.asked.append(("exit", code)),
            quit=lambda: self.asked.append("quit"),
        )
        self.clock = VirtualClock(0.0)
        self.platform = Platform(callbacks, uarts=uarts, debugexit=debugexit, clock=self.clock)
        self.interrupts = Interrupts()
        self.pio: Bus = pio_bus()
        self.loop = IoLoop("main")
        memory = SimpleNamespace(regions=[SimpleNamespace(gpa=0, size=256 << 20)])
        resources: Any = SimpleNamespace(interrupts=self.interrupts, pio=self.pio, main_loop=self.loop, memory=memory)
        self.platform.realize(resources)

    def close(self) -> None:
        self.platform.close()
        self.loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(UartSpec(number=1, backend=""), UartSpec(number=2, backend=""), debugexit=True)
    yield rig
    rig.close()


@pytest.mark.parametrize(
    ("port", "size", "value", "asked"),
    [
        (0xCF9, 1, 0x06, ("reset", False)),
        (0xCF9, 1, 0x0E, ("reset", True)),
        (0x64, 1, 0xFE, ("reset", True)),
        (0xF4, 1, 0x31, ("exit", 0x31)),
        (0xF4, 4, 0x12345678, ("exit", 0x12345678)),
        (0x404, 2, 5 << 10 | 1 << 13, "poweroff"),
        (0x404, 2, 3 << 10 | 1 << 13, "suspend"),
    ],
)
def test_port_write_reaches_the_machine(rig: Rig, port: int, size: int, value: int, asked: object) -> None:
    rig.pio.write(port, size, value)
    assert rig.asked == [asked]


def test_reset_register_in_two_steps_as_linux_does_resets_once(rig: Rig) -> None:
    value = rig.pio.read(0xCF9, 1) & ~0x06
    rig.pio.write(0xCF9, 1, value | 2)
    assert rig.asked == []
    rig.pio.write(0xCF9, 1, value | 6)
    assert rig.asked == [("reset", False)]
    assert rig.pio.read(0xCF9, 1) == 6


def test_debug_exit_reads_ffff_and_is_absent_unless_asked_for(rig: Rig) -> None:
    assert rig.pio.read(0xF4, 2) == 0xFFFF
    assert rig.pio.read(0xF4, 4) == 0xFFFF
    plain = Rig()
    assert plain.pio.find(0xF4, 1) is None
    plain.close()


def test_power_button_reaches_gsi_9(rig: Rig) -> None:
    rig.pio.write(0xB2, 1, 0xA0)
    rig.pio.write(0x402, 2, 0x100)
    rig.platform.press_power_button()
    rig.pio.write(0x400, 2, 0x100)
    assert rig.interrupts.levels == [(9, True), (9, False)]


def test_keyboard_controller_uses_irq_1(rig: Rig) -> None:
    rig.pio.write(0x64, 1, 0xAA)
    assert rig.pio.read(0x60, 1) == 0x55
    assert rig.interrupts.levels == [(1, True), (1, False)]


def test_rtc_tells_memory_size(rig: Rig) -> None:
    rig.pio.write(0x70, 1, 0x35)
    assert rig.pio.read(0x71, 1) == 0x0F


def test_pm_timer_counts(rig: Rig) -> None:
    assert rig.platform.pm_timer_port == 0x408
    before = rig.pio.read(0x408, 4)
    rig.clock.advance(0.001)
    assert rig.pio.read(0x408, 4) == before + 3579


@pytest.mark.parametrize("port", [0x80, 0x84])
def test_post_code_is_taken_and_reads_ones(rig: Rig, port: int) -> None:
    rig.pio.write(port, 1, 0x42)
    assert rig.pio.read(port, 1) == 0xFF


@pytest.mark.parametrize(("base", "irq"), [(0x3F8, 4), (0x2F8, 3)])
def test_serial_ports_interrupt_on_their_lines(rig: Rig, base: int, irq: int) -> None:
    rig.pio.write(base + 1, 1, 2)
    assert rig.interrupts.levels == [(irq, True)]


def test_acpi_uarts_are_in_order_of_their_numbers() -> None:
    uarts = [UartSpec(number=5, backend="", io_base=0x9100, irq=11), UartSpec(number=4, backend="")]
    rig = Rig(*uarts)
    assert rig.platform.acpi_uarts() == (("COM4", 0x2E8, 7), ("COM5", 0x9100, 11))
    rig.close()


def test_serial_ports_on_one_interrupt_share_the_line() -> None:
    rig = Rig(UartSpec(number=1, backend=""), UartSpec(number=5, backend="", io_base=0x9000, irq=4))
    rig.pio.write(0x3F9, 1, 2)
    rig.pio.write(0x9001, 1, 2)
    rig.pio.read(0x3FA, 1)
    assert rig.interrupts.levels == [(4, True)]
    rig.pio.read(0x9002, 1)
    assert rig.interrupts.levels == [(4, True), (4, False)]
    rig.close()


def test_serial_port_given_twice_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"-l: 'com1'.*twice"):
        Rig(UartSpec(number=1, backend=""), UartSpec(number=1, backend="stdio"))


def test_serial_ports_that_overlap_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        Rig(UartSpec(number=1, backend=""), UartSpec(number=5, backend="", io_base=0x3FC, irq=5))


def test_missing_tty_is_reported_by_check() -> None:
    callbacks: Any = SimpleNamespace(poweroff=None, reset=lambda full: None, suspend=None, debug_exit=None, quit=None)
    platform = Platform(callbacks, uarts=[UartSpec(number=1, backend="/nonexistent/tty")])
    assert platform.check() == ["-l com1: terminal /nonexistent/tty does not exist"]


def test_reset_brings_every_device_to_power_on(rig: Rig) -> None:
    rig.pio.write(0xB2, 1, 0xA0)
    rig.pio.write(0xCF9, 1, 0x02)
    rig.pio.write(0x64, 1, 0xAA)
    rig.pio.write(0x3FF, 1, 0x77)
    rig.pio.write(0x3F9, 1, 2)
    rig.platform.reset()
    assert rig.pio.read(0x404, 2) == 0
    assert rig.pio.read(0xCF9, 1) == 0
    assert rig.pio.read(0x64, 1) & 1 == 0
    assert rig.pio.read(0x3FF, 1) == 0
    assert rig.interrupts.levels[-2:] == [(1, False), (4, False)]


def test_close_is_idempotent(rig: Rig) -> None:
    rig.platform.close()
    rig.platform.close()
