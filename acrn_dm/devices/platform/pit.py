"""The interval timer (8254) at ports 0x40 to 0x43 and the port that gates its third counter, 0x61.

For hypervisors that leave it to the device model. Counter 0 interrupts; counter 2 is the speaker's, with which guests
measure how fast their time stamp counter runs: its gate is bit 0 of port 0x61, its output bit 5. Nothing ticks while
nobody waits for an interrupt, and a tick is one callback of the main loop.
"""

import threading
import time
from collections.abc import Callable

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.devices.platform.oneshot import OneShot
from acrn_dm.devices.platform.pit_counter import Counter

HZ = 1_193_182
NS_PER_S = 1_000_000_000
SHORTEST_S = 0.0002  # between interrupts, whatever the guest asks for: it can ask for 600,000 a second
COUNTERS = 3
CONTROL = 3  # offset of the control word's port
READ_BACK = 3  # in place of a counter's number

# Access of a counter's two bytes: bits 5:4 of a control word.
LATCH, LOW, HIGH, LOW_THEN_HIGH = range(4)
NO_COUNT_LATCH, NO_STATUS_LATCH = 1 << 5, 1 << 4  # of a read-back command, active low
STATUS_OUTPUT, STATUS_NULL_COUNT = 1 << 7, 1 << 6

GATE_2, SPEAKER = 1 << 0, 1 << 1  # port 0x61
CONTROL_KEPT = 0x0F
REFRESH, OUTPUT_2 = 1 << 4, 1 << 5
REFRESH_NS = 15_085  # the refresh request's toggling: some code measures time with it


@define(eq=False)
class _Port:
    """A counter behind its 8-bit port: what was latched, and which byte is next."""

    counter: Counter
    access: int = LOW_THEN_HIGH
    latched: int | None = None
    status: int | None = None
    high_next: bool = False  # to read
    low: int | None = None  # of a count whose high byte is still to come


class Pit:
    """vCPU threads call the handlers, the main loop the timer. The lock is above the interrupt line's only.

    ``speaker`` answers port 0x61, the object itself ports 0x40 to 0x43.
    """

    def __init__(self, set_irq: Callable[[bool], None], clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """*set_irq* is told the output of counter 0; *clock_ns* drives all three."""
        self._set_irq = set_irq
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._timer = OneShot(self._rise)
        self.speaker = SpeakerPort(self)
        self._power_on()

    def attach(self, loop: IoLoop) -> None:
        """Use *loop* for interrupts."""
        self._timer.loop = loop

    def reset(self) -> None:
        """Power-on state."""
        with self._lock:
            self._power_on()
            self._update()

    def close(self) -> None:
        """Forget the timer. Idempotent."""
        with self._lock:
            self._timer.close()

    def read(self, offset: int, size: int) -> int:
        """IN from a counter; the control word can't be read."""
        if offset == CONTROL or size != 1:
            return (1 << 8 * size) - 1
        with self._lock:
            return self._read(self._ports[offset])

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT of a count's byte, or of a control word."""
        if size != 1:
            return
        with self._lock:
            if offset != CONTROL:
                self._write(self._ports[offset], value)
            elif value >> 6 == READ_BACK:
                self._read_back(value)
            else:
                self._control(self._ports[value >> 6], value)
            self._update()

    def read_speaker(self) -> int:
        """Port 0x61."""
        with self._lock:
            output = OUTPUT_2 if self._ports[2].counter.output(self._ticks()) else 0
            refresh = REFRESH if self._clock_ns() // REFRESH_NS & 1 else 0
            return self._speaker | output | refresh

    def write_speaker(self, value: int) -> None:
        """Port 0x61: the gate of counter 2, and bits that are storage."""
        with self._lock:
            self._speaker = value & CONTROL_KEPT
            self._ports[2].counter.set_gate(bool(value & GATE_2), self._ticks())

    def _power_on(self) -> None:
        self._speaker = 0
        self._ports = [_Port(Counter(gate=i != 2)) for i in range(COUNTERS)]
        self._output = False

    def _ticks(self) -> int:
        return self._clock_ns() * HZ // NS_PER_S

    def _control(self, port: _Port, value: int) -> None:
        access = value >> 4 & 3
        if access == LATCH:
            self._latch(port)
            return
        port.access = access
        port.latched = port.status = port.low = None
        port.high_next = access == HIGH
        port.counter.set_mode(value >> 1 & 7, bool(value & 1))

    def _latch(self, port: _Port) -> None:
        if port.latched is None:
            port.latched = port.counter.value(self._ticks())

    def _read_back(self, value: int) -> None:
        for i, port in enumerate(self._ports):
            if not value >> (i + 1) & 1:
                continue
            if not value & NO_COUNT_LATCH:
                self._latch(port)
            if not value & NO_STATUS_LATCH and port.status is None:
                port.status = self._status(port)

    def _status(self, port: _Port) -> int:
        counter = port.counter
        flags = STATUS_OUTPUT if counter.output(self._ticks()) else 0
        flags |= 0 if counter.loaded else STATUS_NULL_COUNT
        return flags | port.access << 4 | counter.mode << 1 | counter.bcd

    def _read(self, port: _Port) -> int:
        if port.status is not None:
            status, port.status = port.status, None
            return status
        value = port.counter.value(self._ticks()) if port.latched is None else port.latched
        byte = value >> 8 if port.high_next else value & 0xFF
        if port.access == LOW_THEN_HIGH:
            port.high_next = not port.high_next
        if not port.high_next or port.access != LOW_THEN_HIGH:
            port.latched = None  # read completely
        return byte

    def _write(self, port: _Port, value: int) -> None:
        if port.access == LOW_THEN_HIGH and port.low is None:
            port.low = value
            return
        count = value << 8 if port.access == HIGH else value
        if port.access == LOW_THEN_HIGH:
            count = value << 8 | (port.low or 0)
            port.low = None
        port.counter.load(count, self._ticks())

    def _update(self) -> None:
        """Show the output of counter 0, and wake up when it rises next. Under the lock."""
        counter, now = self._ports[0].counter, self._ticks()
        self._drive(counter.output(now))
        self._timer.cancel()
        rise = counter.next_rise(now)
        if rise is not None:
            self._timer.arm(max(SHORTEST_S, (rise - now) / HZ))

    def _rise(self) -> None:
        """The output has risen: for an instant it was low. Ticks that were slept through are lost, as in a real PC."""
        with self._lock:
            self._drive(False)
            self._drive(True)
            self._update()

    def _drive(self, level: bool) -> None:
        if level != self._output:
            self._output = level
            self._set_irq(level)


class SpeakerPort:
    """Port 0x61."""

    def __init__(self, pit: Pit) -> None:
        self._pit = pit

    def read(self, offset: int, size: int) -> int:
        """IN."""
        return self._pit.read_speaker()

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT."""
        self._pit.write_speaker(value)
