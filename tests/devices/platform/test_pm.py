"""ACPI fixed hardware: button, SCI, sleep, SMI command, timer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.platform.pm import PM_TIMER_HZ, PowerManagement
from tests.devices.platform.parts import Clock, Level

STATUS, ENABLE, CONTROL = 0, 2, 4
BUTTON, TIMER, WAKE = 0x100, 0x001, 0x8000
SLP_EN = 0x2000


class Rig:
    """The PM block with ACPI switched on, unless told otherwise."""

    def __init__(self, *, acpi: bool = True) -> None:
        self.sci = Level()
        self.asked: list[str] = []
        self.clock = Clock(0.0)
        self.pm = PowerManagement(
            self.sci,
            lambda sci_kept: self.asked.append("poweroff" if sci_kept else "poweroff without SCI_EN"),
            lambda: self.asked.append("suspend"),
            lambda: int(self.clock.now * 1e9),
        )
        loop: Any = self.clock
        self.pm.attach(loop)
        if acpi:
            self.pm.smi_command.write(0, 1, 0xA0)

    def read(self, register: int) -> int:
        return self.pm.read(register, 2)

    def write(self, register: int, value: int) -> None:
        self.pm.write(register, 2, value)


def test_smi_command_switches_acpi_on_and_off() -> None:
    rig = Rig(acpi=False)
    assert rig.read(CONTROL) == 0
    rig.pm.smi_command.write(0, 1, 0xA0)
    assert rig.read(CONTROL) == 1
    assert rig.pm.acpi_enabled
    rig.pm.smi_command.write(0, 1, 0x55)
    rig.pm.smi_command.write(0, 1, 0xA1)
    assert rig.read(CONTROL) == 0
    assert rig.pm.smi_command.read(0, 1) == 0xFF


def test_guest_cannot_change_sci_en_itself() -> None:
    rig = Rig()
    rig.write(CONTROL, 0)
    assert rig.read(CONTROL) == 1
    off = Rig(acpi=False)
    off.write(CONTROL, 1)
    assert off.read(CONTROL) == 0


def test_power_button_raises_the_sci_until_the_status_is_cleared() -> None:
    rig = Rig()
    rig.write(ENABLE, BUTTON)
    rig.pm.press_power_button()
    assert rig.read(STATUS) == BUTTON
    assert rig.sci.asserted
    rig.write(STATUS, BUTTON)
    assert rig.read(STATUS) == 0
    assert not rig.sci.asserted


def test_power_button_without_enable_sets_the_status_only() -> None:
    rig = Rig()
    rig.pm.press_power_button()
    assert rig.read(STATUS) == BUTTON
    assert not rig.sci.asserted
    rig.write(ENABLE, BUTTON)
    assert rig.sci.asserted


def test_power_button_before_acpi_comes_when_it_is_on() -> None:
    rig = Rig(acpi=False)
    rig.write(ENABLE, BUTTON)
    rig.pm.press_power_button()
    assert not rig.sci.asserted
    rig.pm.smi_command.write(0, 1, 0xA0)
    assert rig.sci.asserted


def test_status_bits_are_cleared_by_one_only() -> None:
    rig = Rig()
    rig.pm.press_power_button()
    rig.pm.wake()
    rig.write(STATUS, 0)
    assert rig.read(STATUS) == BUTTON | WAKE
    rig.write(STATUS, WAKE)
    assert rig.read(STATUS) == BUTTON


def test_enable_keeps_the_events_there_are() -> None:
    rig = Rig()
    rig.write(ENABLE, 0xFFFF)
    assert rig.read(ENABLE) == 0x0521


def test_control_reserved_and_write_only_bits_read_zero() -> None:
    rig = Rig()
    rig.write(CONTROL, 0xFFFF & ~SLP_EN)
    assert rig.read(CONTROL) == 0x1FFD


@pytest.mark.parametrize(
    ("sleep_type", "asked"), [(5, ["poweroff"]), (3, ["suspend"]), (0, []), (1, []), (4, []), (7, [])]
)
def test_sleep_types(sleep_type: int, asked: list[str]) -> None:
    rig = Rig()
    rig.write(CONTROL, sleep_type << 10 | SLP_EN | 1)
    assert rig.asked == asked
    assert rig.read(CONTROL) == sleep_type << 10 | 1


def test_sleep_type_without_sleep_enable_does_nothing() -> None:
    rig = Rig()
    rig.write(CONTROL, 5 << 10)
    assert rig.asked == []


def test_sleep_enable_later_uses_the_type_written_with_it_as_linux_does() -> None:
    rig = Rig()
    rig.write(CONTROL, 5 << 10)
    rig.write(CONTROL, 5 << 10 | SLP_EN | 1)
    assert rig.asked == ["poweroff"]


@pytest.mark.parametrize(("acpi", "asked"), [(True, "poweroff without SCI_EN"), (False, "poweroff")])
def test_power_off_tells_whether_sci_en_was_preserved(acpi: bool, asked: str) -> None:
    rig = Rig(acpi=acpi)
    rig.write(CONTROL, 5 << 10 | SLP_EN)
    assert rig.asked == [asked]


def test_byte_accesses_reach_their_byte() -> None:
    rig = Rig()
    rig.pm.write(ENABLE + 1, 1, BUTTON >> 8)
    rig.pm.press_power_button()
    assert rig.pm.read(STATUS + 1, 1) == 1
    assert rig.sci.asserted
    rig.pm.write(STATUS + 1, 1, 1)
    assert not rig.sci.asserted
    rig.pm.write(CONTROL + 1, 1, (5 << 10 | SLP_EN) >> 8)
    assert rig.asked == ["poweroff"]


def test_4_byte_access_covers_status_and_enable() -> None:
    rig = Rig()
    rig.pm.press_power_button()
    rig.pm.write(STATUS, 4, BUTTON << 16)
    assert rig.pm.read(STATUS, 4) == BUTTON << 16 | BUTTON


def test_writing_control_leaves_status_and_enable() -> None:
    rig = Rig()
    rig.write(ENABLE, BUTTON)
    rig.pm.press_power_button()
    rig.write(CONTROL, 0xFFFF & ~SLP_EN)
    assert rig.pm.read(STATUS, 4) == BUTTON << 16 | BUTTON


def test_reset_lets_the_sci_go() -> None:
    rig = Rig()
    rig.write(ENABLE, BUTTON)
    rig.pm.press_power_button()
    rig.pm.reset()
    assert not rig.sci.asserted
    assert [rig.read(r) for r in (STATUS, ENABLE, CONTROL)] == [0, 0, 0]


def test_timer_counts_at_its_rate_and_wraps_at_32_bits() -> None:
    rig = Rig()
    assert rig.pm.timer.read(0, 4) == 0
    rig.clock.now = 1.0
    assert rig.pm.timer.read(0, 4) == PM_TIMER_HZ
    assert rig.pm.timer.read(1, 2) == PM_TIMER_HZ >> 8 & 0xFFFF
    rig.clock.now = (1 << 32) / PM_TIMER_HZ + 1
    assert abs(rig.pm.timer.read(0, 4) - PM_TIMER_HZ) < 8


def test_timer_is_read_only() -> None:
    rig = Rig()
    rig.pm.timer.write(0, 4, 0x1234)
    assert rig.pm.timer.read(0, 4) == 0


def test_timer_carry_sets_its_status_without_enable() -> None:
    rig = Rig()
    rig.clock.now = 600.5
    assert rig.read(STATUS) == TIMER
    rig.write(STATUS, TIMER)
    assert rig.read(STATUS) == 0
    assert rig.clock.armed == 0


def test_timer_carry_interrupts_when_enabled_each_time() -> None:
    rig = Rig()
    rig.write(ENABLE, TIMER)
    rig.clock.pass_time(599)
    assert not rig.sci.asserted
    rig.clock.pass_time(2)
    assert rig.sci.asserted
    rig.write(STATUS, TIMER)
    assert not rig.sci.asserted
    rig.clock.pass_time(600)
    assert rig.sci.asserted


def test_close_stops_the_carry_for_good() -> None:
    rig = Rig()
    rig.write(ENABLE, TIMER)
    rig.pm.close()
    rig.pm.close()
    rig.write(ENABLE, TIMER)
    assert rig.clock.armed == 0


@given(
    writes=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1), st.booleans()), max_size=40
    )
)
def test_sci_is_always_what_the_registers_say(writes: list[tuple[int, int, int, bool]]) -> None:
    rig = Rig()
    for offset, width, value, press in writes:
        size = min(width, 1 if offset % 2 else 2 if offset == 4 else 4)
        if press:
            rig.pm.press_power_button()
        rig.pm.write(offset, size, value & ((1 << (8 * size)) - 1))
        assert rig.sci.asserted == bool(rig.read(STATUS) & rig.read(ENABLE))
        assert rig.read(CONTROL) & 0xE003 == 1


def test_control_written_by_bytes_keeps_the_other_byte() -> None:
    rig = Rig()
    rig.pm.write(CONTROL, 1, 0xF4)
    rig.pm.write(CONTROL + 1, 1, 0x04)
    assert rig.read(CONTROL) == 0x04F5
