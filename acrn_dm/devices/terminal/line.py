"""A line to a host's terminal, or to what stands in its place: input and output that never block, under job control.

Input is taken from the terminal as it comes and waits in a pipe, so that the escape key is seen while the guest reads
nothing. A process in the terminal's background has no input and leaves the modes alone, until it is brought to the
front.
"""

import errno
import logging
import os
import stat
import weakref
from collections.abc import Callable
from pathlib import Path

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop, Timer
from acrn_dm.base.files import one_user
from acrn_dm.devices.loopwork import FdWatch
from acrn_dm.devices.terminal import look
from acrn_dm.devices.terminal.files import Sink, Source
from acrn_dm.devices.terminal.modes import RawMode, in_background
from acrn_dm.devices.terminal.size import Size, SizeWatch, window_size

log = logging.getLogger(__name__)

CHUNK = 4096
LOOK_S = 0.25  # how soon a job that is brought to the front is: shells send SIGCONT to stopped ones only

_open: "weakref.WeakSet[Line]" = weakref.WeakSet()


class Line:
    """``input`` and ``output`` are our own, non-blocking files. Whoever reads ``input`` sees its end when the
    terminal's input ends. Made, started and closed on control threads; the rest is on the loop.
    """

    def __init__(self, label: str, source: Source, sink: Sink) -> None:
        """Takes both over; raw from here on, if that is possible now."""
        self.label = label
        self._source, self._sink = source, sink
        self.input, self._feed = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._raw = RawMode(source.fd)
        self._waiting = b""
        self._loop: IoLoop | None = None
        self._watches: tuple[FdWatch, ...] = ()
        self._timer: Timer | None = None
        self._sizes: SizeWatch | None = None
        self._escape: Callable[[bytes], bytes] = bytes
        self._resized: Callable[[], None] = lambda: None
        self._closed = self._ended = False
        self.front = self._raw.enter()
        _open.add(self)

    @property
    def output(self) -> int:
        """Where to write."""
        return self._sink.fd

    @property
    def size(self) -> Size | None:
        """(columns, rows), None without a terminal."""
        return window_size(self._sink.fd) or window_size(self._source.fd)

    def start(
        self, loop: IoLoop, *, escape: Callable[[bytes], bytes] = bytes, resized: Callable[[], None] | None = None
    ) -> None:
        """Let input through from now on, filtered by *escape*; call *resized*, on the loop, at another size."""
        self._loop, self._escape = loop, escape
        self._watches = (FdWatch(loop, self._source.fd, self._take), FdWatch(loop, self._feed, self._pass_on))
        if resized is not None:
            self._resized = resized
            if not self._hears_of_resizes():
                self._sizes = SizeWatch(loop, lambda: self.size, resized)
        loop.call_soon(self._look)

    def step_aside(self, again: Callable[[], None]) -> bool:
        """We are about to be stopped: the terminal is as it was. For a signal's handler.

        False where it has to wait: *again* is called, on the loop, when the work that it interrupted is done.
        """
        if self._raw.step_aside() or self._loop is None:
            return True
        self._loop.call_soon(again)
        return False

    def come_back(self) -> None:
        """We go on, in the front or in the background. For a signal's handler."""
        if self._loop is not None:
            self._loop.call_soon(self._look)

    def close(self) -> None:
        """Give everything back as it was. Idempotent."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        if self._sizes is not None:
            self._sizes.close()
        for watch in self._watches:
            watch.close()
        if self._timer is not None:
            self._timer.cancel()
        self._raw.leave()
        self._source.close()
        self._sink.close()
        os.close(self.input)
        self._close_feed()

    def _hears_of_resizes(self) -> bool:
        """Whether SIGWINCH comes to us: to the front of one's own terminal, and what happens meanwhile is looked at
        later.
        """
        fds = [fd for fd in (self._sink.fd, self._source.fd) if os.isatty(fd)]
        return all(_is_controlling(fd) for fd in fds)

    def _look(self) -> None:
        """Where we are by now: to the front we come with raw modes, and with what changed meanwhile."""
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.front = self._raw.enter()
        if self.front:
            self._resized()  # SIGWINCH went to those who had the terminal meanwhile
        elif self._loop is not None:
            self._timer = self._loop.call_later(LOOK_S, self._look)
        self._follow()

    def _take(self) -> None:
        """Input is there."""
        if in_background(self._source.fd):
            self._look()
            return
        try:
            data = self._source.read(CHUNK)
        except BlockingIOError:
            return
        except OSError as e:
            if in_background(self._source.fd):  # since we looked; SIGTTIN is ignored, so this is EIO
                self._look()
                return
            log.debug("%s: input: %s", self.label, e)  # hung up
            data = b""
        if not data:
            self._end()
            return
        self._waiting += self._escape(data)
        self._pass_on()

    def _pass_on(self) -> None:
        """Put what waits into the pipe, as far as there is room."""
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._feed, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._waiting = b""
        self._follow()

    def _follow(self) -> None:
        """Watch what there is something to be done for."""
        if self._closed or self._ended or not self._watches:
            return
        source, feed = self._watches
        feed.want(WRITE if self._waiting else 0)
        try:
            source.want(READ if self.front and not self._waiting else 0)
        except PermissionError:  # epoll takes neither plain files nor /dev/null: no input from there
            if stat.S_ISREG(os.fstat(self._source.fd).st_mode):
                log.warning("%s: input from a regular file is not read", self.label)
            self._end()

    def _end(self) -> None:
        self._ended = True
        for watch in self._watches:
            watch.close()
        self._close_feed()

    def _close_feed(self) -> None:
        feed, self._feed = self._feed, -1
        if feed >= 0:
            os.close(feed)


def _is_controlling(fd: int) -> bool:
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    return True


def open_lines() -> tuple[Line, ...]:
    """All that are open."""
    return tuple(_open)


def open_terminal(path: Path | str, label: str) -> Line:
    """A line to the host's terminal *path*, for us alone. Raises OSError, and ConfigError when somebody has it."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not os.isatty(fd):
        os.close(fd)
        raise OSError(errno.ENOTTY, "not a terminal", str(path))
    if not one_user.take(fd):
        os.close(fd)
        raise ConfigError(look.in_use(path, one_user.holder(path)), option=label)
    return Line(label, Source(fd=fd), Sink(fd=os.dup(fd)))
