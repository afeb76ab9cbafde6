"""The RTC: reading, setting, formats, alarms, periods, CMOS."""

import calendar
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.platform import rtc_time
from acrn_dm.devices.platform.rtc import Rtc
from tests.devices.platform.parts import Clock, Level

A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PIE, AIE, UIE, BINARY, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
GIB = 1 << 30


class Rig:
    """An RTC whose registers a guest reads and writes by index."""

    def __init__(self, when: str = "2023-11-14 22:13:20") -> None:
        parsed = time.strptime(when, "%Y-%m-%d %H:%M:%S")
        self.clock = Clock(calendar.timegm(parsed) + 0.25)
        self.irq = Level()
        self.rtc = Rtc(self.irq, self.clock)
        loop: Any = self.clock
        self.rtc.attach(loop)

    def __getitem__(self, index: int) -> int:
        self.rtc.write(0, 1, index)
        return self.rtc.read(1, 1)

    def __setitem__(self, index: int, value: int) -> None:
        self.rtc.write(0, 1, index)
        self.rtc.write(1, 1, value)

    @property
    def date(self) -> list[int]:
        """Century, year, month, day, hour, minute, second, as the registers say."""
        return [self[i] for i in (0x32, 9, 8, 7, 4, 2, 0)]

    @date.setter
    def date(self, values: list[int]) -> None:
        for index, value in zip((0x32, 9, 8, 7, 4, 2, 0), values, strict=True):
            self[index] = value


def test_shows_the_clock_in_bcd_and_24_hours_at_power_on() -> None:
    rig = Rig()
    assert rig.date == [0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20]
    assert rig[6] == 3, "a Tuesday; Sunday is 1"


def test_binary_mode() -> None:
    rig = Rig()
    rig[B] = H24 | BINARY
    assert rig.date == [20, 23, 11, 14, 22, 13, 20]


@pytest.mark.parametrize(
    ("hour", "expected"), [("00", 0x12), ("01", 0x01), ("11", 0x11), ("12", 0x92), ("13", 0x81), ("23", 0x91)]
)
def test_12_hour_mode(hour: str, expected: int) -> None:
    rig = Rig(f"2024-02-29 {hour}:00:00")
    rig[B] = 0
    assert rig[4] == expected


def test_time_passes() -> None:
    rig = Rig("2023-12-31 23:59:59")
    rig.clock.pass_time(1)
    assert rig.date == [0x20, 0x24, 1, 1, 0, 0, 0]


def test_update_in_progress_shows_just_before_the_second_only() -> None:
    rig = Rig()
    assert rig[A] == 0x26
    rig.clock.pass_time(0.7499)
    assert rig[A] == 0xA6
    rig.clock.pass_time(0.001)
    assert rig[A] == 0x26


def test_setting_with_updates_inhibited_as_linux_does() -> None:
    rig = Rig()
    rig[B] = H24 | SET
    rig[A] = 0x70
    rig.date = [0x20, 0x30, 0x02, 0x28, 0x23, 0x59, 0x58]
    rig.clock.pass_time(100)
    assert rig[0] == 0x58
    rig[B] = H24
    rig[A] = 0x26
    rig.clock.pass_time(3)
    assert rig.date == [0x20, 0x30, 0x03, 0x01, 0, 0, 1]


def test_setting_register_by_register_as_windows_does() -> None:
    rig = Rig()
    for index, value in ((0, 0), (2, 0x30), (4, 0x08), (7, 0x31), (8, 0x01), (9, 0x25)):
        rig[index] = value
    assert rig.date == [0x20, 0x25, 1, 0x31, 8, 0x30, 0]


def test_date_that_does_not_exist_stands_still_until_it_is_mended() -> None:
    rig = Rig("2023-11-14 00:00:00")
    rig[7] = 0x31
    rig.clock.pass_time(5)
    assert rig.date == [0x20, 0x23, 0x11, 0x31, 0, 0, 0]
    rig[8] = 0x12
    rig.clock.pass_time(5)
    assert rig.date == [0x20, 0x23, 0x12, 0x31, 0, 0, 5]


def test_weekday_cannot_be_set() -> None:
    rig = Rig()
    rig[6] = 7
    assert rig[6] == 3


def test_host_clock_steps_are_followed() -> None:
    rig = Rig()
    rig[B] = H24 | SET
    rig[4] = 0x21
    rig[B] = H24
    rig.clock.now += 3600
    assert rig[4] == 0x22


def test_registers_c_and_d_are_read_only() -> None:
    rig = Rig()
    rig[C] = 0xFF
    rig[D] = 0
    assert rig[C] == 0
    assert rig[D] == 0x80


def test_update_flag_is_set_once_a_second_even_without_interrupts_and_cleared_by_reading() -> None:
    rig = Rig()
    assert rig[C] == 0
    rig.clock.pass_time(1)
    assert rig[C] == 0x10
    assert rig[C] == 0
    assert rig.irq.edges == []
    assert rig.clock.armed == 0


def test_update_interrupt_comes_each_second_and_reading_c_acknowledges() -> None:
    rig = Rig()
    rig[B] = H24 | UIE
    assert not rig.irq.asserted
    rig.clock.pass_time(0.75)
    assert rig.irq.asserted
    assert rig[C] == 0x90
    assert not rig.irq.asserted
    rig.clock.pass_time(1)
    assert rig.irq.edges == [True, False, True]


def test_update_interrupt_that_nobody_acknowledges_stays_one() -> None:
    rig = Rig()
    rig[B] = H24 | UIE
    rig.clock.pass_time(10)
    assert rig.irq.edges == [True]


def test_alarm_comes_at_its_time_only() -> None:
    rig = Rig("2023-11-14 22:13:20")
    for index, value in ((1, 0x05), (3, 0x14), (5, 0x22)):
        rig[index] = value
    rig[C]
    rig[B] = H24 | AIE
    rig.clock.pass_time(44)
    assert not rig.irq.asserted
    rig.clock.pass_time(1)
    assert rig.irq.asserted
    assert rig[C] & 0xA0 == 0xA0


def test_alarm_with_wild_cards_comes_each_minute() -> None:
    rig = Rig("2023-11-14 22:13:20")
    for index, value in ((1, 0x00), (3, 0xFF), (5, 0xC0)):
        rig[index] = value
    rig[B] = H24 | AIE
    for _ in range(3):
        rig.clock.pass_time(60)
        assert rig[C] & 0xA0 == 0xA0


@pytest.mark.parametrize(("rate", "seconds"), [(6, 1 / 1024), (15, 0.5), (1, 1 / 256), (2, 1 / 128), (3, 1 / 8192)])
def test_periodic_interrupt_has_its_rate(rate: int, seconds: float) -> None:
    rig = Rig()
    rig[A] = 0x20 | rate
    rig[B] = H24 | PIE
    rig.clock.pass_time(seconds * 0.99)
    assert not rig.irq.asserted
    rig.clock.pass_time(seconds * 0.02)
    assert rig[C] & 0xC0 == 0xC0


def test_periodic_interrupt_waits_for_the_guest() -> None:
    rig = Rig()
    rig[B] = H24 | PIE
    rig.clock.pass_time(5)
    assert rig.irq.edges == [True]
    assert rig.clock.armed == 0


@pytest.mark.parametrize("a", [0x20, 0x70])
def test_periodic_interrupt_is_off_at_rate_0_and_in_divider_reset(a: int) -> None:
    rig = Rig()
    rig[A] = a
    rig[B] = H24 | PIE
    assert rig.clock.armed == 0


def test_set_bit_clears_the_update_interrupt_enable() -> None:
    rig = Rig()
    rig[B] = H24 | SET | UIE
    assert rig[B] == H24 | SET


def test_disabling_interrupts_stops_the_timers() -> None:
    rig = Rig()
    rig[B] = H24 | PIE | AIE | UIE
    assert rig.clock.armed == 2
    rig[B] = H24
    assert rig.clock.armed == 0


def test_reset_keeps_time_and_ram_and_turns_interrupts_off() -> None:
    rig = Rig()
    rig[4] = 0x05
    rig[0x40] = 0x77
    rig[B] = PIE | UIE | BINARY
    rig.rtc.reset()
    assert rig[B] == H24
    assert rig[4] == 0x05
    assert rig[0x40] == 0x77
    assert rig.clock.armed == 0


def test_reset_starts_a_clock_that_was_being_set() -> None:
    rig = Rig("2023-11-14 22:13:20")
    rig[B] = BINARY | H24
    rig[B] = BINARY | H24 | SET
    rig[4] = 7
    rig.rtc.reset()
    rig.clock.pass_time(1)
    assert rig.date == [0x20, 0x23, 0x11, 0x14, 0x07, 0x13, 0x21]


def test_close_stops_the_timers_for_good() -> None:
    rig = Rig()
    rig[B] = H24 | UIE
    rig.rtc.close()
    rig.rtc.close()
    rig[B] = H24 | PIE
    assert rig.clock.armed == 0


def test_index_ignores_the_nmi_bit_and_reads_as_ones() -> None:
    rig = Rig()
    assert rig[0x80 | D] == 0x80
    assert rig.rtc.read(0, 1) == 0xFF


def test_wide_accesses_read_ones_and_write_nothing() -> None:
    rig = Rig()
    rig.rtc.write(0, 2, 0x1234)
    assert rig.rtc.read(0, 2) == 0xFFFF


@pytest.mark.parametrize(
    ("regions", "low", "high"),
    [
        ([(0, 256 << 20)], 240 * 16, 0),
        ([(0, 2 * GIB), (4 * GIB, 6 * GIB)], (2 * GIB - (16 << 20)) >> 16, 6 * GIB >> 16),
    ],
)
def test_memory_size_is_in_cmos(regions: list[tuple[int, int]], low: int, high: int) -> None:
    rig = Rig()
    rig.rtc.set_memory_size(regions)
    assert rig[0x34] | rig[0x35] << 8 == low
    assert rig[0x5B] | rig[0x5C] << 8 | rig[0x5D] << 16 == high


@given(seconds=st.integers(rtc_time.FIRST, rtc_time.LAST), mode=st.sampled_from([0, H24, BINARY, H24 | BINARY]))
def test_encoded_time_decodes_to_itself(seconds: int, mode: int) -> None:
    registers = bytearray(128)
    for register, value in rtc_time.encode(seconds, mode).items():
        registers[register] = value
    assert rtc_time.decode(registers, mode) == seconds


@given(registers=st.binary(min_size=128, max_size=128), mode=st.integers(0, 255))
def test_decoding_anything_never_raises(registers: bytes, mode: int) -> None:
    seconds = rtc_time.decode(registers, mode)
    assert seconds is None or rtc_time.FIRST <= seconds <= rtc_time.LAST


@pytest.mark.parametrize(
    ("register", "value"),
    [(0, 0x60), (2, 0x5A), (4, 0x24), (7, 0), (7, 0x32), (8, 0), (8, 0x13), (9, 0xA0), (0x32, 0x0F)],
)
def test_register_out_of_range_is_no_date(register: int, value: int) -> None:
    registers = bytearray(128)
    for r, v in rtc_time.encode(0, H24).items():
        registers[r] = v
    registers[register] = value
    assert rtc_time.decode(registers, H24) is None


@given(
    steps=st.lists(
        st.one_of(st.tuples(st.integers(0, 255), st.integers(0, 255)), st.tuples(st.just(-1), st.floats(0.001, 2))),
        max_size=40,
    )
)
def test_any_sequence_of_writes_never_raises_and_arms_at_most_two_timers(steps: list[tuple[int, float]]) -> None:
    rig = Rig()
    for index, value in steps:
        if index < 0:
            rig.clock.pass_time(value)
            rig[C]
        else:
            rig[index] = int(value)
        assert 0 <= rig[index & 0x7F] <= 255
        assert rig.clock.armed <= 2


def test_setting_the_time_is_no_update() -> None:
    rig = Rig()
    rig[4] = 0x05
    assert rig[C] == 0


def test_setting_the_clock_is_told_with_both_times() -> None:
    rig = Rig()
    told: list[tuple[int, int]] = []
    rig.rtc.on_set = lambda before, after: told.append((before, after))
    rig[B] = H24 | SET
    rig[4] = 0x23  # 22 o'clock before
    rig[B] = H24
    assert [after - before for before, after in told] == [3600]
    rig[B] = H24 | SET
    rig[B] = H24
    assert len(told) == 1
