"""A UART's line over files of the host: bounded output that never blocks a vCPU, input as fast as the guest takes it.

A byte is written at once while nothing waits; what the file does not take is kept, ``OUTPUT_LIMIT`` bytes, and the loop
writes it. When that is full the UART shows itself busy, so that a slow terminal slows the guest's console and loses
nothing; but drivers spin on that, so only for as long as ``devices.backlog`` has patience, then the oldest bytes go.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence

from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop, Timer
from acrn_dm.devices.backlog import Backlog
from acrn_dm.devices.loopwork import FdWatch
from acrn_dm.devices.uart.uart16550 import Uart16550

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 65536
READ_SIZE = 4096


class Stream:
    """*rx* and *tx* may be one file, which then must be non-blocking; *tx* must be. Neither is closed here."""

    def __init__(
        self,
        uart: Uart16550,
        loop: IoLoop,
        *,
        rx: int | None,
        tx: int | None,
        on_end: Callable[[], None] = lambda: None,
        wait: bool = False,
    ) -> None:
        """*on_end* is called once, on the loop, when the other side has gone; *wait*: patience has no end."""
        self._uart = uart
        self._loop = loop
        self._rx, self._tx = rx, tx
        self._on_end = on_end
        self._wait = wait
        self._out = Backlog(limit=OUTPUT_LIMIT, clock=loop.clock)
        self._lock = threading.Lock()
        self._paused = self._ended = self._gone = False
        self._timer: Timer | None = None  # while the UART shows itself busy
        self._dropped = 0
        shared = rx is not None and rx == tx
        self._tx_watch = None if tx is None else FdWatch(loop, tx, self._ready if shared else self._writable)
        self._rx_watch = self._tx_watch if shared else None if rx is None else FdWatch(loop, rx, self._readable)
        loop.call_soon(self._watch)

    def send(self, byte: int) -> None:
        """Write *byte*, or keep it; dropped while the line is busy, and when the other side has gone."""
        with self._lock:
            if self._ended or self._gone or self._tx is None or self._is_busy():
                return
            first = not self._out
            self._drop(self._out.append(bytes((byte,))))
            if first and not self._flush():
                self._loop.call_soon(self._watch)

    def has_room(self) -> bool:
        """Whether another byte is kept; a line without anybody at the other end takes everything."""
        with self._lock:
            return self._ended or not self._is_busy()

    def resume(self) -> None:
        """The UART has room for input again."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._watch)

    def close(self) -> None:
        """Watch nothing any more. Not under the UART's lock: waits for a handler that runs now."""
        self._ended = True
        with self._lock:
            self._stop_timer()
        for watch in (self._rx_watch, self._tx_watch):
            if watch is not None:
                watch.close()

    def _is_busy(self) -> bool:
        """Whether the guest has to wait for room; the loop tells it when not any more. Under the lock."""
        if self._out.room or self._wait:
            return not self._out.room
        patience = self._out.patience()
        if patience and self._timer is None:
            self._timer = self._loop.call_later(patience, self._waited)
        return patience > 0

    def _waited(self) -> None:
        with self._lock:
            self._timer = None
            busy = self._is_busy()
        if not busy:
            self._uart.room_again()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self, count: int) -> None:
        if count and not self._dropped:
            log.warning("serial port: its reader is too slow: the oldest output is dropped")
        self._dropped += count

    def _flush(self) -> bool:
        """Write what waits; whether nothing is left (also when the other side has gone). Under the lock."""
        self._out.write(self._write)
        if self._gone:
            self._out.clear()
        if self._out:
            return False
        if self._dropped:
            log.warning("serial port: %d bytes were dropped for its slow reader", self._dropped)
            self._dropped = 0
        return True

    def _write(self, views: Sequence[memoryview]) -> int:
        assert self._tx is not None
        try:
            return os.writev(self._tx, views)
        except BlockingIOError:
            return 0
        except OSError:
            self._gone = True
            self._loop.call_soon(self._end)
            return 0

    def _watch(self) -> None:
        if self._ended:
            return
        reads = READ if self._rx is not None and not self._paused else 0
        writes = WRITE if self._out else 0
        if self._rx_watch is not None and self._rx_watch is self._tx_watch:
            self._rx_watch.want(reads | writes)
            return
        if self._tx_watch is not None:
            self._tx_watch.want(writes)
        if self._rx_watch is not None:
            try:
                self._rx_watch.want(reads)
            except PermissionError:  # epoll does not watch plain files and /dev/null: no input from there
                self._rx = self._rx_watch = None

    def _ready(self) -> None:
        self._writable()
        self._readable()

    def _writable(self) -> None:
        with self._lock:
            was_full = not self._out.room
            self._flush()
            has_room = self._out.room > 0
            if has_room:
                self._stop_timer()
        if was_full and has_room:
            self._uart.room_again()
        self._watch()

    def _readable(self) -> None:
        if self._ended or self._rx is None:
            return
        self._paused = True  # before looking: a vCPU that makes room from here on will call resume
        room = self._uart.room()
        if not room:
            self._watch()
            return
        self._paused = False
        try:
            data = os.read(self._rx, min(room, READ_SIZE))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._uart.receive(data)
        else:
            self._input_ended()

    def _input_ended(self) -> None:
        if self._rx_watch is self._tx_watch or self._tx is None:
            self._end()
        else:
            self._rx = None  # a script's standard input is at its end: its output goes on
            if self._rx_watch is not None:
                self._rx_watch.close()

    def _end(self) -> None:
        if not self._ended:
            self.close()
            self._uart.room_again()
            self._on_end()
