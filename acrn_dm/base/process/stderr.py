"""Lines for stderr, whose reader may be slow, stopped or gone: who has one to write never waits for it.

A pipe that is full and a terminal that is held with Ctrl-S stop whoever writes to them. O_NONBLOCK is no way out: it
would belong to everybody who has the same open file. So a thread writes. Up to ``MAX_UNSENT`` bytes wait for it, what
is more is dropped, and when there is room again a line says how many were.
"""

import contextlib
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm.base.log_text import LineFormatter
from acrn_dm.base.records import define

MAX_UNSENT = 64 << 10
PATIENCE_S = 1.0  # for the last lines, when we end


@define(eq=False)
class LineWriter:
    """A thread that writes lines to *fd*; *lost* makes the line that says how many were dropped. Any thread."""

    fd: int
    lost: Callable[[int], bytes]
    _unsent: "deque[bytes]" = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)
    _dropped: int = attrs.field(default=0, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    # Its lock is re-entrant: a signal's handler may have something to say, too.
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False, repr=False)

    def put(self, line: bytes) -> None:
        """Have *line* written, or drop it. Returns at once."""
        with self._changed:
            if (self._size and self._size + len(line) > MAX_UNSENT) or self._closed:
                self._dropped += 1
                return
            self._tell_of_dropped()
            self._append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything has been written, but not longer than *seconds*; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._size, seconds)

    def close(self) -> None:
        """Write what can be written within a second; the rest is lost. Idempotent."""
        self.flush(PATIENCE_S)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _append(self, line: bytes) -> None:
        self._unsent.append(line)
        self._size += len(line)

    def _tell_of_dropped(self) -> None:
        if self._dropped:
            self._append(self.lost(self._dropped))
            self._dropped = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closed)
                if not self._unsent:
                    return
                line = self._unsent.popleft()
            self._write(line)
            with self._changed:
                self._size -= len(line)
                if not self._unsent:
                    self._tell_of_dropped()
                self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody is left to tell
            while line:
                try:
                    line = line[os.write(self.fd, line) :]
                except BlockingIOError:  # somebody who shares it has made it so
                    poller = select.poll()
                    poller.register(self.fd, select.POLLOUT)
                    poller.poll()


def lost_records(program: str) -> Callable[[int], bytes]:
    """What *program* says of lines that were dropped."""
    return lambda count: f"{program}: WARNING: {count} log records were lost here: nobody read them\n".encode()


def descriptor() -> int | None:
    """Of stderr; None where it is none (a test's buffer, closed)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # io.UnsupportedOperation is the first two
        return sys.stderr.fileno()
    return None


def encoded(text: str) -> bytes:
    """*text* and a line's end for stderr, with what it can't encode as escapes."""
    return f"{text}\n".encode(getattr(sys.stderr, "encoding", None) or "utf-8", "backslashreplace")


def say(text: str) -> None:
    """Write the line *text*, giving a reader a second at most."""
    fd = descriptor()
    if fd is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(encoded(text).decode(errors="replace"))
        return
    writer = LineWriter(fd, lambda count: b"")
    writer.put(encoded(text))
    writer.close()


class StderrHandler(logging.Handler):
    """Log records of *program* on stderr. Never waits."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self.setFormatter(LineFormatter(f"{program}: %(levelname)s: %(message)s"))
        fd = descriptor()
        self._writer = None if fd is None else LineWriter(fd, lost_records(program))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand *record* over; one that can't be formatted is a bug of its place, and no reason to stop."""
        try:
            text = self.format(record)
        except Exception as e:
            text = f"{self._program}: ERROR: log record of {record.pathname}:{record.lineno}: {e!r}"
        if self._writer is not None:
            self._writer.put(encoded(text))
        else:
            say(text)

    def close(self) -> None:
        """Give what waits a second to be read."""
        if self._writer is not None:
            self._writer.close()
        super().close()
