"""The 16550A: registers, FIFOs and the interrupt (National Semiconductor PC16550D, 8.0).

Time does not pass here: a byte written is sent at once, a byte that arrives is there at once, whatever the divisor
says. So the character timeout of the receive FIFO is over as soon as there is a byte. When the backend has no room the
transmitter says "busy" (LSR.THRE = 0) until it has; a byte written nevertheless is lost, as on hardware.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

# Register offsets; 0 and 1 are the divisor latch while LCR.DLAB is set.
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)

IER_RX, IER_TX, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_MODEM, IIR_NONE, IIR_TX, IIR_RX, IIR_LINE, IIR_TIMEOUT, IIR_FIFOS = 0x0, 0x1, 0x2, 0x4, 0x6, 0xC, 0xC0
FCR_ENABLE, FCR_CLEAR_RX = 0x01, 0x02
FCR_KEPT = 0xC9  # enable, DMA mode, trigger level
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x01, 0x02, 0x04, 0x08, 0x10
LSR_DATA, LSR_OVERRUN, LSR_THRE, LSR_TEMT = 0x01, 0x02, 0x20, 0x40
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
MSR_DELTAS = 0x0F

FIFO_SIZE = 16
TRIGGER_LEVELS = (1, 4, 8, 14)  # FCR bits 7:6
BACKLOG = 4096  # bytes read from the host that wait for room in the FIFO
CLOCK_HZ = 1_843_200
DEFAULT_DIVISOR = CLOCK_HZ // 16 // 9600


class Line(Protocol):
    """The other end: a backend, as the UART sees it. Methods may be called from any thread and never block."""

    def send(self, byte: int) -> None:
        """Take one byte; dropped when there is no room."""

    def has_room(self) -> bool:
        """Whether ``send`` keeps the next byte."""

    def resume(self) -> None:
        """There is room for input again."""


class _NoLine:
    """A port with nothing connected: output vanishes."""

    def send(self, byte: int) -> None:
        pass

    def has_room(self) -> bool:
        return True

    def resume(self) -> None:
        pass


class Uart16550:
    """One UART. vCPU threads call ``read`` and ``write``, the backend's loop ``receive`` and ``room_again``.

    The lock is a leaf; the interrupt level is set under it, so that levels arrive in order.
    """

    def __init__(self, set_irq: Callable[[bool], None]) -> None:
        self.line: Line = _NoLine()
        self._set_irq = set_irq
        self._lock = threading.Lock()
        self._backlog: deque[int] = deque()
        self._irq = False
        self._readers: tuple[Callable[[], int], ...] = (
            self._take,
            lambda: self._ier,
            self._identify,
            lambda: self._lcr,
            lambda: self._mcr,
            self._line_status,
            self._modem_status,
            lambda: self._scr,
        )
        self._power_on()

    def reset(self) -> None:
        """Power-on state; what the host has sent and the guest not read is dropped."""
        with self._lock:
            self._backlog.clear()
            self._power_on()
            self._update_irq()
        self.line.resume()

    def read(self, offset: int, size: int) -> int:
        """Read registers; ISA splits wider accesses into bytes."""
        with self._lock:
            value = 0
            for i in range(size):
                value |= self._read_register(offset + i) << (8 * i)
            self._update_irq()
            hungry = len(self._backlog) < BACKLOG // 2
        if hungry and offset == DATA:
            self.line.resume()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write registers; ISA splits wider accesses into bytes."""
        with self._lock:
            for i in range(size):
                self._write_register(offset + i, value >> (8 * i) & 0xFF)
                self._update_irq()

    def room(self) -> int:
        """How many bytes ``receive`` takes now."""
        return BACKLOG - len(self._backlog)

    def receive(self, data: bytes) -> None:
        """Bytes from the host; at most ``room()``. In loopback mode the receiver is cut off and they are lost."""
        with self._lock:
            if self._mcr & MCR_LOOP:
                return
            self._backlog.extend(data[: self.room()])
            self._refill()
            self._update_irq()

    def room_again(self) -> None:
        """The backend can take bytes again."""
        with self._lock:
            self._tx_pending = True
            self._update_irq()

    def _power_on(self) -> None:
        self._fifo: deque[int] = deque()
        self._ier = self._fcr = self._lcr = self._mcr = self._scr = self._overrun = 0
        self._msr = MSR_DCD | MSR_DSR | MSR_CTS
        self._divisor = DEFAULT_DIVISOR
        self._tx_pending = False  # "holding register empty" not yet reported

    def _read_register(self, offset: int) -> int:
        if self._lcr & LCR_DLAB and offset in (DATA, IER):
            return self._divisor >> (8 * offset) & 0xFF
        return self._readers[offset]() if offset < len(self._readers) else 0xFF

    def _write_register(self, offset: int, value: int) -> None:
        if self._lcr & LCR_DLAB and offset in (DATA, IER):
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
            return
        match offset:
            case 0:
                self._transmit(value)
            case 1:
                if value & IER_TX and not self._ier & IER_TX:
                    self._tx_pending = True  # drivers start transmitting by enabling the interrupt
                self._ier = value & 0x0F
            case 2:
                self._control_fifos(value)
            case 3:
                self._lcr = value
            case 4:
                self._control_modem(value)
            case 7:
                self._scr = value

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fcr & FCR_ENABLE else 1

    def _refill(self) -> None:
        while self._backlog and len(self._fifo) < self._capacity():
            self._fifo.append(self._backlog.popleft())

    def _take(self) -> int:
        byte = self._fifo.popleft() if self._fifo else 0
        if not self._mcr & MCR_LOOP:
            self._refill()
        return byte

    def _transmit(self, byte: int) -> None:
        self._tx_pending = False
        if self._mcr & MCR_LOOP:
            if len(self._fifo) < self._capacity():
                self._fifo.append(byte)
            else:
                self._overrun = LSR_OVERRUN
        else:
            self.line.send(byte)
        self._tx_pending = self._thre()

    def _thre(self) -> bool:
        return bool(self._mcr & MCR_LOOP) or self.line.has_room()

    def _line_status(self) -> int:
        value = self._overrun | (LSR_DATA if self._fifo else 0)
        self._overrun = 0
        return value | (LSR_THRE | LSR_TEMT if self._thre() else 0)

    def _modem_status(self) -> int:
        value = self._msr
        self._msr &= ~MSR_DELTAS
        return value

    def _reason(self) -> int:
        """The interrupt of highest priority (8.6)."""
        trigger = TRIGGER_LEVELS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
        if self._ier & IER_LINE and self._overrun:
            return IIR_LINE
        if self._ier & IER_RX and self._fifo:
            return IIR_RX if len(self._fifo) >= trigger else IIR_TIMEOUT
        if self._ier & IER_TX and self._tx_pending:
            return IIR_TX
        if self._ier & IER_MODEM and self._msr & MSR_DELTAS:
            return IIR_MODEM
        return IIR_NONE

    def _identify(self) -> int:
        reason = self._reason()
        if reason == IIR_TX:
            self._tx_pending = False
        return reason | (IIR_FIFOS if self._fcr & FCR_ENABLE else 0)

    def _control_fifos(self, value: int) -> None:
        changed = (self._fcr ^ value) & FCR_ENABLE
        if changed or (value & FCR_ENABLE and value & FCR_CLEAR_RX):
            self._fifo.clear()
        # The other bits count only while bit 0 is written as 1 (8.5).
        self._fcr = value & FCR_KEPT if value & FCR_ENABLE else 0
        self._refill()

    def _control_modem(self, value: int) -> None:
        self._mcr = value & 0x1F
        lines = MSR_DCD | MSR_DSR | MSR_CTS
        if self._mcr & MCR_LOOP:
            pairs = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))
            lines = sum(status for control, status in pairs if self._mcr & control)
        changed = (lines ^ self._msr) >> 4
        if lines & MSR_RI:
            changed &= ~(MSR_RI >> 4)  # only its trailing edge counts
        self._msr = lines | (self._msr & MSR_DELTAS) | changed

    def _update_irq(self) -> None:
        wanted = self._reason() != IIR_NONE
        if wanted != self._irq:
            self._irq = wanted
            self._set_irq(wanted)
