"""A terminal's size, and how its changes are noticed."""

import fcntl
import struct
import termios
from collections.abc import Callable

from acrn_dm.base.events.ioloop import IoLoop, Timer

LOOK_S = 0.25
WINSIZE = struct.Struct("HHHH")  # rows, columns, pixels

Size = tuple[int, int]  # columns, rows


def window_size(fd: int) -> Size | None:
    """(columns, rows) of the terminal *fd*, None if it is none or has no size."""
    try:
        rows, columns, _, _ = WINSIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(WINSIZE.size)))
    except (OSError, ValueError):  # ValueError: -1, closed
        return None
    return (columns, rows) if columns and rows else None


class SizeWatch:
    """The watch over a terminal's size: calls *changed*, on the loop, when *look* returns another one than before.

    By looking now and then: SIGWINCH goes to the foreground of the terminal, and nothing at all to who has a
    pseudo-terminal's other end or a terminal that is not its own.
    """

    def __init__(self, loop: IoLoop, look: Callable[[], Size | None], changed: Callable[[], None]) -> None:
        self._loop, self._look, self._changed = loop, look, changed
        self._size = look()
        self._timer: Timer | None = None
        self._closed = False
        self._arm()

    def close(self) -> None:
        """Look no more. Any thread; *changed* may be running on the loop."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._tick)

    def _tick(self) -> None:
        if self._closed:
            return
        size = self._look()
        if size is not None and size != self._size:
            self._size = size
            self._changed()
        self._arm()
