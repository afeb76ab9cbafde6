"""One counter of an 8254: what it shows and what its output is, worked out from the time that has passed.

Source: Intel 8254 data sheet (order number 231164), "Mode definitions". Nothing runs: time is given in ticks of the
1.193182 MHz clock. A count that is written takes effect at once, where the chip waits for the next clock, or in modes 2
and 3 for the end of the period.
"""

import enum


class Mode(enum.IntEnum):
    """The way it counts; 6 and 7 are other names of 2 and 3."""

    TERMINAL_COUNT = 0  # output rises after the count
    ONE_SHOT = 1  # the gate's rising edge starts it; output is low while it counts
    RATE = 2  # periodic; output is low for the last tick
    SQUARE = 3  # periodic; output is low for the second half
    SOFTWARE_STROBE = 4  # output is low for the tick behind the count
    HARDWARE_STROBE = 5  # the same, started by the gate


PERIODIC = (Mode.RATE, Mode.SQUARE)
TRIGGERED = (Mode.ONE_SHOT, Mode.HARDWARE_STROBE)
FULL = 0x1_0000  # a count of 0


class Counter:
    """*ticks* arguments are the time on one clock that never goes back. Not locked."""

    def __init__(self, *, gate: bool = True) -> None:
        self.mode = Mode.TERMINAL_COUNT
        self.bcd = False
        self.reload = FULL
        self.loaded = False  # a count was written since the mode
        self.gate = gate
        self._start = 0  # when counting began
        self._held: int | None = None  # ticks counted when the gate stopped it
        self._triggered = False

    def set_mode(self, mode: int, bcd: bool) -> None:
        """Take a control word; nothing counts until a count is written."""
        self.mode = Mode(mode - 4 if mode > 5 else mode)
        self.bcd = bcd
        self.loaded = self._triggered = False
        self._held = None

    def load(self, count: int, ticks: int) -> None:
        """Take a count (0 is the largest) and begin, unless the gate has to."""
        self.reload = (_from_bcd(count) or 10_000) if self.bcd else (count or FULL)
        self.loaded = True
        if self.mode not in TRIGGERED:
            self._start = ticks
            self._held = None if self.gate else 0

    def set_gate(self, gate: bool, ticks: int) -> None:
        """Change the gate's level: it stops counting, or a rising edge begins anew."""
        if gate == self.gate:
            return
        elapsed = self.elapsed(ticks)
        self.gate = gate
        if self.mode in TRIGGERED:
            if gate:
                self._start, self._triggered = ticks, True
        elif not gate:
            self._held = elapsed
        else:
            self._start = ticks if self.mode in PERIODIC else ticks - elapsed
            self._held = None

    def elapsed(self, ticks: int) -> int:
        """Ticks counted so far."""
        return self._held if self._held is not None else max(0, ticks - self._start)

    @property
    def counting(self) -> bool:
        """Whether time makes a difference."""
        if self.mode in TRIGGERED:
            return self.loaded and self._triggered
        return self.loaded and self._held is None

    def output(self, ticks: int) -> bool:
        """Level of the output pin."""
        elapsed = self.elapsed(ticks)
        started = self.loaded and (self._triggered or self.mode not in TRIGGERED)
        if self.mode is Mode.TERMINAL_COUNT:
            return started and elapsed >= self.reload
        if not started or (self.mode in PERIODIC and not self.gate):
            return True
        if self.mode is Mode.ONE_SHOT:
            return elapsed >= self.reload
        if self.mode is Mode.RATE:
            return elapsed % self.reload != self.reload - 1
        if self.mode is Mode.SQUARE:
            return elapsed % self.reload < (self.reload + 1) // 2
        return elapsed != self.reload

    def value(self, ticks: int) -> int:
        """The counting element, as 16 bits (or four decimal digits)."""
        elapsed = self.elapsed(ticks)
        span = 10_000 if self.bcd else FULL
        if self.mode is Mode.SQUARE:
            # Down by 2 a tick, twice a period.
            half = (self.reload + 1) // 2
            phase = elapsed % self.reload
            count = (self.reload & ~1) - 2 * (phase if phase < half else phase - half)
        elif self.mode is Mode.RATE:
            count = self.reload - elapsed % self.reload
        else:
            count = self.reload - elapsed  # goes on below 0, round the counter
        return _to_bcd(count % span) if self.bcd else count % span

    def next_rise(self, ticks: int) -> int | None:
        """When the output rises next, behind *ticks*; None if it never does by itself."""
        if not self.counting:
            return None
        if self.mode in PERIODIC:
            periods = self.elapsed(ticks) // self.reload + 1
            return self._start + periods * self.reload
        rise = self._start + self.reload + (1 if self.mode in (Mode.SOFTWARE_STROBE, Mode.HARDWARE_STROBE) else 0)
        return rise if rise > ticks else None


def _from_bcd(value: int) -> int:
    """Four decimal digits; a digit above 9 counts as its value."""
    return sum((value >> 4 * i & 0xF) * 10**i for i in range(4))


def _to_bcd(value: int) -> int:
    return sum(value // 10**i % 10 << 4 * i for i in range(4))
