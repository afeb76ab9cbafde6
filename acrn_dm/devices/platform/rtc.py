"""The real-time clock and CMOS RAM: an MC146818A at ports 0x70 (index) and 0x71 (data), interrupt 8.

The clock shows the host's time plus an offset that the guest changes by setting it. Nothing ticks while no interrupt is
enabled: time and flags are worked out when they are read. A guest may set it with updates inhibited (register B, SET)
or, as Windows does, register by register; a date that does not exist stands still until it is mended.
"""

import threading
from collections.abc import Callable, Sequence

from acrn_dm.base.address_map import HIGHMEM_BASE, LOWMEM_LIMIT, MIB
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.platform import rtc_time
from acrn_dm.devices.platform.oneshot import OneShot

SIZE = 128
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
ALARM_SECONDS, ALARM_MINUTES, ALARM_HOURS = 1, 3, 5
ANY = 0xC0  # an alarm register from here on matches everything

A_UPDATING, A_DIVIDER, A_RATE = 0x80, 0x70, 0x0F
DIVIDER_RUN = 0x20  # 32768 Hz crystal
POWER_ON_A = DIVIDER_RUN | 6  # 1024 Hz
B_SET, B_PERIODIC, B_ALARM, B_UPDATE = 0x80, 0x40, 0x20, 0x10
C_IRQ, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10  # same places as the enable bits in B
D_VALID = 0x80
UPDATE_SECONDS = 244e-6  # how long before an update A_UPDATING shows

MEMORY_BELOW_4G = 0x34  # 2 bytes: 64 KiB units above 16 MiB
MEMORY_ABOVE_4G = 0x5B  # 3 bytes: 64 KiB units above 4 GiB


class Rtc:
    """vCPU threads call ``read`` and ``write``, the main loop the timers. The lock is a leaf."""

    def __init__(
        self, set_irq: Callable[[bool], None], clock: Callable[[], float], on_alarm: Callable[[], None] = lambda: None
    ) -> None:
        """*clock*: seconds since 1970, UTC. *on_alarm*: the alarm went off while its interrupt was enabled."""
        self._set_irq = set_irq
        self._on_alarm = on_alarm
        self._clock = clock
        self.on_set: Callable[[int, int], None] = lambda before, after: None  # in seconds since 1970; under the lock
        self._lock = threading.Lock()
        self._second_timer = OneShot(self._second_passed)
        self._period_timer = OneShot(self._period_passed)
        self._offset = 0.0  # guest's time minus host's
        self._cmos = bytearray(SIZE)
        self._index = D
        self._cmos[A], self._cmos[B], self._cmos[D] = POWER_ON_A, rtc_time.HOURS_24, D_VALID
        self._stopped = False  # the registers hold the time, not the clock
        self._last_update = self._second()

    def attach(self, loop: IoLoop) -> None:
        """Use *loop* for interrupts."""
        self._second_timer.loop = self._period_timer.loop = loop

    def set_memory_size(self, regions: Sequence[tuple[int, int]]) -> None:
        """Say how much RAM there is, for firmware; *regions* are (gpa, bytes)."""
        low = sum(size for gpa, size in regions if gpa < LOWMEM_LIMIT)  # firmware's own lies behind it
        high = sum(size for gpa, size in regions if gpa >= HIGHMEM_BASE)
        self._cmos[MEMORY_BELOW_4G : MEMORY_BELOW_4G + 2] = (max(0, low - 16 * MIB) >> 16).to_bytes(2, "little")
        self._cmos[MEMORY_ABOVE_4G : MEMORY_ABOVE_4G + 3] = (high >> 16).to_bytes(3, "little")

    def reset(self) -> None:
        """Interrupts off and the clock running, as firmware would leave it. Time and RAM are battery-backed."""
        with self._lock:
            if self._stopped:
                self._restart()
            self._stopped = False
            self._cmos[A], self._cmos[B], self._cmos[C] = POWER_ON_A, rtc_time.HOURS_24, 0
            self._index = D
            self._update()

    def close(self) -> None:
        """No timer runs any more. Idempotent."""
        with self._lock:
            self._second_timer.close()
            self._period_timer.close()

    def read(self, offset: int, size: int) -> int:
        """Port 0x71 reads the register; 0x70 is write-only."""
        if offset == 0 or size != 1:
            return (1 << (8 * size)) - 1
        with self._lock:
            return self._read_register(self._index)

    def write(self, offset: int, size: int, value: int) -> None:
        """Port 0x70 selects a register (bit 7 would mask the NMI), 0x71 writes it."""
        if size != 1:
            return
        with self._lock:
            if offset == 0:
                self._index = value & 0x7F
            else:
                self._write_register(self._index, value)

    def _now(self) -> float:
        return self._clock() + self._offset

    def _second(self) -> int:
        return int(self._now() // 1)

    def _read_register(self, index: int) -> int:
        if index in rtc_time.TIME_REGISTERS:
            self._refresh()
        elif index == A and not self._stopped and self._now() % 1 >= 1 - UPDATE_SECONDS:
            return self._cmos[A] | A_UPDATING
        elif index == C:
            self._note_update()
            value, self._cmos[C] = self._cmos[C], 0
            self._update()
            return value
        return self._cmos[index]

    def _write_register(self, index: int, value: int) -> None:
        if index in rtc_time.TIME_REGISTERS:
            self._set_time(index, value)
        elif index == A:
            self._reconfigure(A, value & ~A_UPDATING)
        elif index == B:
            self._reconfigure(B, value & ~B_UPDATE if value & B_SET else value)
        elif index not in (C, D):
            self._cmos[index] = value

    def _set_time(self, index: int, value: int) -> None:
        self._refresh()
        self._cmos[index] = value
        # The weekday follows from the date. Everything else counts at once, unless the guest will say when.
        if index != rtc_time.WEEKDAY and not self._inhibited():
            self._restart()

    def _reconfigure(self, index: int, value: int) -> None:
        """Write register A or B, and stop or start the clock as they say."""
        self._refresh()
        self._cmos[index] = value
        if self._inhibited():
            self._stopped = True
        elif self._stopped:
            self._restart()
        self._update()

    def _inhibited(self) -> bool:
        return bool(self._cmos[B] & B_SET) or self._cmos[A] & A_DIVIDER > DIVIDER_RUN

    def _refresh(self) -> None:
        """Bring the time registers up to date, unless they are what counts."""
        if not self._stopped:
            for register, value in rtc_time.encode(self._second(), self._cmos[B]).items():
                self._cmos[register] = value

    def _restart(self) -> None:
        """Go on from what the registers say; a date that does not exist stays where it is."""
        seconds = rtc_time.decode(self._cmos, self._cmos[B])
        self._stopped = seconds is None
        if seconds is not None:
            if seconds != self._second():
                self.on_set(self._second(), seconds)
            self._offset = seconds - self._clock()
            self._last_update = seconds

    def _note_update(self) -> None:
        """Set the flags of the updates since the last look."""
        second = self._second()
        if self._stopped or second == self._last_update:
            return
        self._last_update = second
        self._cmos[C] |= C_UPDATE
        if self._alarm_matches():
            self._cmos[C] |= C_ALARM

    def _alarm_matches(self) -> bool:
        self._refresh()
        pairs = (
            (ALARM_SECONDS, rtc_time.SECONDS),
            (ALARM_MINUTES, rtc_time.MINUTES),
            (ALARM_HOURS, rtc_time.HOURS),
        )
        return all(self._cmos[alarm] >= ANY or self._cmos[alarm] == self._cmos[now] for alarm, now in pairs)

    def _update(self) -> None:
        """Set the interrupt's level, and the timers that enabled interrupts need. Under the lock."""
        raised = bool(self._cmos[C] & self._cmos[B] & (B_PERIODIC | B_ALARM | B_UPDATE))
        self._cmos[C] = self._cmos[C] & ~C_IRQ | (C_IRQ if raised else 0)
        self._set_irq(raised)
        if self._cmos[B] & (B_ALARM | B_UPDATE) and not self._stopped:
            self._second_timer.arm(1 - self._now() % 1)
        else:
            self._second_timer.cancel()
        # The next period starts when the guest has taken notice of this one: no storm at one that does not listen.
        period = self._period()
        if self._cmos[B] & B_PERIODIC and period is not None and not self._cmos[C] & C_PERIODIC:
            self._period_timer.arm(period)
        else:
            self._period_timer.cancel()

    def _period(self) -> float | None:
        """Seconds between periodic interrupts; None: off (MC146818A, table 5, for 32768 Hz)."""
        rate = self._cmos[A] & A_RATE
        if rate == 0 or self._cmos[A] & A_DIVIDER != DIVIDER_RUN:
            return None
        return (1 << (rate + 6 if rate < 3 else rate - 1)) / 32768

    def _second_passed(self) -> None:
        with self._lock:
            self._note_update()
            self._update()
            alarm = self._cmos[C] & self._cmos[B] & B_ALARM
        if alarm:
            self._on_alarm()

    def _period_passed(self) -> None:
        with self._lock:
            self._cmos[C] |= C_PERIODIC
            self._update()
