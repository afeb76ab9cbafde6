"""ACPI fixed hardware: PM1 events and control, the SMI command port, the PM timer (ACPI 6.5, 4.8.3).

Ports: 0x400 PM1 status, 0x402 PM1 enable, 0x404 PM1 control, 0x408 PM timer, 0xB2 SMI command. The SCI is
level-triggered; it is raised while ACPI is on (SCI_EN, by the SMI command) and an enabled event's status bit is set.
"""

import threading
import time
from collections.abc import Callable

from acrn_dm.base import address_map as layout
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.platform.oneshot import OneShot

TIMER_STS, BM_STS, GLOBAL_STS, BUTTON_STS, SLEEP_BUTTON_STS, RTC_STS, WAKE_STS = (
    1 << 0, 1 << 4, 1 << 5, 1 << 8, 1 << 9, 1 << 10, 1 << 15,
)  # fmt: skip
STATUS_CLEARABLE = TIMER_STS | BM_STS | GLOBAL_STS | BUTTON_STS | SLEEP_BUTTON_STS | RTC_STS | WAKE_STS
ENABLE_WRITABLE = TIMER_STS | GLOBAL_STS | BUTTON_STS | RTC_STS  # enable bits stand where the status bits do
SCI_EN = 1 << 0
SLP_TYP_SHIFT, SLP_TYP_MASK = 10, 7
SLP_EN = 1 << 13  # write-only
CONTROL_KEPT = 0x1FFC  # what of a write reads back; SCI_EN is not the guest's
S3, S5 = 3, 5  # SLP_TYP, as the DSDT's \\_S3 and \\_S5 say

STATUS, ENABLE, CONTROL = 0, 2, 4  # offsets from PM1A_EVENT, 2 bytes each
PM_TIMER = 0x408
PM_TIMER_HZ = 3_579_545


class PowerManagement:
    """The PM1 registers; ``smi_command`` and ``timer`` answer the other ports."""

    def __init__(
        self,
        set_sci: Callable[[bool], None],
        on_poweroff: Callable[[bool], None],
        on_suspend: Callable[[], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """*on_poweroff* is told whether SCI_EN was preserved, as it should be. *clock_ns* drives the PM timer."""
        self._set_sci = set_sci
        self._on_poweroff, self._on_suspend = on_poweroff, on_suspend
        self._on_alarm: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._carry = OneShot(self._carried)
        self._status = self._enable = self._control = 0
        self.timer = PmTimer(clock_ns)
        self.smi_command = SmiCommand(self._set_acpi)

    @property
    def acpi_enabled(self) -> bool:
        """Whether the guest has switched ACPI on: without it nobody hears the power button."""
        return bool(self._control & SCI_EN)

    def attach(self, loop: IoLoop) -> None:
        """Use *loop* for the timer's carry interrupt."""
        self._carry.loop = loop

    def reset(self) -> None:
        """Power-on state; the timer goes on."""
        with self._lock:
            self._status = self._enable = self._control = 0
            self._update()

    def close(self) -> None:
        """Forget the timer's interrupt. Idempotent."""
        with self._lock:
            self._carry.close()

    def press_power_button(self) -> None:
        """Set the button's status bit. Any thread."""
        self._raise(BUTTON_STS)

    def rtc_alarm(self) -> None:
        """The clock's alarm went off: an event of its own, and what ends a sleep if the guest has enabled it."""
        self._raise(RTC_STS)
        if self._enable & RTC_STS:
            self._on_alarm()

    def on_alarm(self, callback: Callable[[], object]) -> None:
        """Call *callback* when an alarm goes off that the guest has enabled."""
        self._on_alarm = callback

    def wake(self) -> None:
        """The machine comes back from S3. Any thread."""
        self._raise(WAKE_STS)

    def read(self, offset: int, size: int) -> int:
        """Read PM1 registers, whole or in parts."""
        with self._lock:
            self._update()
            registers = self._status | self._enable << 16 | self._control << 32
            return registers >> (8 * offset) & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write PM1 registers, whole or in parts: status bits are cleared by 1."""
        written = value << (8 * offset)
        mask = ((1 << (8 * size)) - 1) << (8 * offset)
        with self._lock:
            self._status &= ~(written & STATUS_CLEARABLE)
            self._enable = _merge(self._enable, written >> 16, mask >> 16) & ENABLE_WRITABLE
            control = _merge(self._control, written >> 32, mask >> 32)
            kept, sci_kept = control & CONTROL_KEPT, bool(control & SCI_EN) or not self._control & SCI_EN
            self._control = kept | (self._control & SCI_EN)
            sleep = kept >> SLP_TYP_SHIFT & SLP_TYP_MASK if written >> 32 & SLP_EN else None
            self._update()
        if sleep == S5:
            self._on_poweroff(sci_kept)
        elif sleep == S3:
            self._on_suspend()

    def _set_acpi(self, enabled: bool) -> None:
        with self._lock:
            self._control = self._control & ~SCI_EN | (SCI_EN if enabled else 0)
            self._update()

    def _raise(self, status: int) -> None:
        with self._lock:
            self._status |= status
            self._update()

    def _update(self) -> None:
        """Bring timer status and SCI up to date. Under the lock."""
        if self.timer.carried():
            self._status |= TIMER_STS
        self._set_sci(bool(self._control & SCI_EN and self._status & self._enable))
        if self._enable & TIMER_STS and not self._status & TIMER_STS:
            self._carry.arm(self.timer.seconds_to_carry())
        else:
            self._carry.cancel()

    def _carried(self) -> None:
        with self._lock:
            self._update()


class PmTimer:
    """The 32-bit counter at 3.579545 MHz; its carry is a change of bit 31."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._seen = self._count() >> 31

    def read(self, offset: int, size: int) -> int:
        """Read the counter, whole or in parts."""
        return (self._count() & 0xFFFF_FFFF) >> (8 * offset) & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Read-only."""

    def carried(self) -> bool:
        """Whether bit 31 has changed since the last call."""
        seen, self._seen = self._seen, self._count() >> 31
        return seen != self._seen

    def seconds_to_carry(self) -> float:
        """Until bit 31 changes next."""
        return ((1 << 31) - self._count() % (1 << 31)) / PM_TIMER_HZ

    def _count(self) -> int:
        return self._clock_ns() * PM_TIMER_HZ // 1_000_000_000


class SmiCommand:
    """Port 0xB2: 0xA0 switches ACPI on, 0xA1 off. There is no system management mode behind it."""

    def __init__(self, set_acpi: Callable[[bool], None]) -> None:
        self._set_acpi = set_acpi

    def read(self, offset: int, size: int) -> int:
        """Write-only."""
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Obey the two commands there are."""
        if value in (layout.ACPI_ENABLE, layout.ACPI_DISABLE):
            self._set_acpi(value == layout.ACPI_ENABLE)


def _merge(old: int, new: int, mask: int) -> int:
    return (old & ~mask | new & mask) & 0xFFFF
