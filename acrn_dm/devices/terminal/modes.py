"""A terminal's modes: raw while we have it, and what was there before on every way out."""

import atexit
import contextlib
import os
import termios
import threading
from typing import Any

from acrn_dm.devices.terminal import _rescue

BUSY_S = 0.1  # a mode is set in microseconds


def in_background(fd: int) -> bool:
    """Whether *fd* is our controlling terminal and another process group has it: reading would be answered by SIGTTIN,
    setting modes by SIGTTOU.
    """
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # no terminal, or not ours: nobody stops us
        return False


class RawMode:
    """The raw mode of one terminal, and the way back. Output processing stays on: the host's own messages share the
    screen.

    The end of the interpreter and signals that end the process put it back, too.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._raw: list[Any] | None = None
        self._slot = -1
        self._lock = threading.Lock()

    def enter(self) -> bool:
        """Make it raw, unless it is no terminal, or not ours at the moment: then return False.

        Again after somebody else has had it. Then what is found is what to put back, unless it is still our raw mode:
        not every shell sets a terminal when a job stops.
        """
        if in_background(self._fd):
            return False
        with self._lock, contextlib.suppress(termios.error):  # no terminal, or one that was hung up
            now = termios.tcgetattr(self._fd)
            if now != self._raw:
                self._keep(now)
                termios.tcsetattr(self._fd, termios.TCSANOW, _made_raw(now))
                self._raw = termios.tcgetattr(self._fd)
        return True

    def leave(self) -> None:
        """Put back what was there, unless another process group has the terminal. Idempotent."""
        with self._lock:
            self._leave()

    def step_aside(self) -> bool:
        """``leave`` for a signal's handler. It may have interrupted the work on the modes: then False."""
        if not self._lock.acquire(timeout=BUSY_S):
            return False
        try:
            self._leave()
        finally:
            self._lock.release()
        return True

    def _keep(self, now: list[Any]) -> None:
        if self._saved is None:
            atexit.register(self.leave)
        _rescue.forget(self._slot)
        self._saved, self._slot = now, _rescue.keep(self._fd)

    def _leave(self) -> None:
        if self._saved is None:
            return
        if not in_background(self._fd):
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        _rescue.forget(self._slot)
        self._saved = self._raw = None
        self._slot = -1
        atexit.unregister(self.leave)


def _made_raw(modes: list[Any]) -> list[Any]:
    raw = list(modes)
    raw[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8 | termios.CLOCAL
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6] = list(modes[6])
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    return raw
