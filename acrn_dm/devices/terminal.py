"""This process's terminal (standard input and output): who has it, raw mode, and giving it back as it was."""

import atexit
import contextlib
import os
import stat
import termios
from collections.abc import Callable
from typing import Any

from acrn_dm.errors import ConfigError, HostError

CTRL_A = 0x01
QUIT = ord("x")

_owner: str | None = None  # one user per process, as there is one terminal


class EscapeFilter:
    """Watches input for ``Ctrl-a x``, which ends the machine; everything else, Ctrl-a itself too, goes to the guest."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        self._on_quit = on_quit
        self._armed = False

    def __call__(self, data: bytes) -> bytes:
        passed = bytearray()
        for byte in data:
            if self._armed and byte == QUIT:
                self._on_quit()
            else:
                passed.append(byte)
            self._armed = byte == CTRL_A
        return bytes(passed)


class RawMode:
    """Puts a terminal into raw mode and back. Output processing stays on: the host's own messages share the screen."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def enter(self) -> None:
        """Make it raw, unless it is no terminal or we are in its background (where changing it would stop us)."""
        if not os.isatty(self._fd) or self._in_background():
            return
        saved = termios.tcgetattr(self._fd)
        raw = list(saved)
        raw[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
            | termios.ICRNL | termios.IXON
        )  # fmt: skip
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8 | termios.CLOCAL
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        self._saved = saved
        atexit.register(self.leave)

    def leave(self) -> None:
        """Restore what was there. Idempotent."""
        if self._saved is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
            self._saved = None
            atexit.unregister(self.leave)

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) != os.getpgrp()
        except OSError:  # not our controlling terminal: nobody stops us
            return False


class Terminal:
    """Standard input and output, taken by one device. ``output`` is a non-blocking file of our own."""

    def __init__(self, owner: str, *, stdin: int = 0, stdout: int = 1) -> None:
        """Take it for *owner*. Raises ConfigError when another device has it, HostError when it is closed."""
        global _owner
        if _owner is not None:
            raise ConfigError(f"standard input and output are already used by {_owner}", option=owner, value="stdio")
        self.input = stdin
        try:
            self.output = open_output(stdout)
        except OSError as e:
            raise HostError.from_os(f"{owner}: opening stdio", e) from e
        self._raw = RawMode(stdin)
        self._raw.enter()
        _owner = owner

    def close(self) -> None:
        """Give it back as it was. Idempotent."""
        global _owner
        if self.output >= 0:
            self._raw.leave()
            os.close(self.output)
            self.output = -1
            _owner = None


def open_output(fd: int) -> int:
    """A non-blocking file that writes where *fd* does, without making *fd* itself non-blocking.

    The flag belongs to the open file, which we share with our shell and our own log. So terminals and pipes are opened
    anew; plain files never block; a socket, which can't be opened anew, is shared.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", flags)
    copy = os.dup(fd)
    if not stat.S_ISREG(mode):
        os.set_blocking(copy, False)
    return copy
