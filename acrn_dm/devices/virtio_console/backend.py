"""Backends of a port, where its bytes come from and go to on the host: stdio, pty, tty, file. Knows no descriptor and
no guest.

All of it is non-blocking and lives on one I/O loop. A backend is *connected* or not; it tells its port when that
changes, and never in the middle of a call of the port's, which works on what would change. While it is not connected,
output is thrown away, as on a serial line with nothing plugged in.
"""

import contextlib
import errno
import logging
import os
import select
import stat
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop, Timer
from acrn_dm.base.files import one_user
from acrn_dm.base.files.private_files import open_or_make
from acrn_dm.base.process.stderr import say
from acrn_dm.base.sandbox.needs import TERMINAL
from acrn_dm.devices.loopwork import FdWatch, poll
from acrn_dm.devices.terminal.line import Line, open_terminal
from acrn_dm.devices.terminal.size import Size, SizeWatch, window_size
from acrn_dm.devices.terminal.stdio import Terminal

log = logging.getLogger(__name__)

READER_POLL_S = 0.25  # nothing tells a pty's master, or a FIFO's writer, that somebody opened the other end
HANG_UP = select.EPOLLRDHUP  # asks for a peer's shutdown; a hang-up is reported to whoever asks for anything

Ready = Callable[[], None]
Changed = Callable[[bool], None]


class PortBackend:
    """Base: two descriptors, which may be one. Subclasses set them in ``open``.

    *leaves*: the other side can go, which is noticed also while nobody reads or writes. *absent*: what ``poll`` says of
    the descriptor while nobody is at the other end; 0 where somebody always is, or is accepted. *moved_in_c*: planes
    know how this very class sends and receives. *sandbox_groups*: what it does after ``open``, of ``sandbox.needs``.

    ``open``, ``window_size`` and ``close`` run on control threads, everything else on the loop's.
    """

    leaves: bool = False
    absent: int = 0
    moved_in_c: bool = False
    sandbox_groups: ClassVar[tuple[str, ...]] = ()

    def __init__(self, label: str) -> None:
        self.label = label  # for messages: what and where
        self.read_fd = -1
        self.write_fd = -1
        self.connected = False
        self._loop: IoLoop | None = None
        self._ready: Ready = lambda: None
        self._changed: Changed = lambda connected: None
        self._watches: dict[int, FdWatch] = {}
        self.on_drop: Ready = lambda: None  # the descriptors are about to go; called at once
        self.read_elsewhere: Callable[[], bool] = lambda: (
            False
        )  # whether input is wanted that ``want`` does not know of
        self.on_quit: Ready = lambda: None  # the escape key was typed at our own terminal
        self.on_resize: Ready = lambda: None  # the terminal may have another size
        self._wanted = (False, False)
        self._timer: Timer | None = None
        self._closed = False

    def open(self) -> None:
        """Open the host side. Raises HostError."""

    def attach(self, loop: IoLoop, ready: Ready, changed: Changed) -> None:
        """From now on call *ready* when what ``want`` asked for is there, and *changed* with what ``connected`` became:
        each change in turn, and from the loop.
        """
        self._loop, self._ready, self._changed = loop, ready, changed
        self.begin_soon(0.0)

    def begin_soon(self, seconds: float) -> None:
        """Call ``begin`` on the loop in *seconds*, unless closed by then."""
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, lambda: None if self._closed else self.begin())

    def begin(self) -> None:
        """First thing on the loop, and after each end: connect, or look again while nobody is there."""
        if self.absent and poll(self.write_fd) & self.absent:
            self.begin_soon(READER_POLL_S)
        else:
            self.set_connected(self.write_fd >= 0)

    def want(self, *, read: bool, write: bool) -> None:
        """Watch for input, for room for output, or neither."""
        self._wanted = (read, write)
        self._follow()

    def receive(self, limit: int) -> bytes:
        """Return up to *limit* bytes of input, b"" when there is none now. The end of the input is noticed here."""
        if self.read_fd < 0 or not self.connected:
            return b""
        try:
            data = os.read(self.read_fd, limit)
        except BlockingIOError:
            return b""
        except OSError as e:  # EIO: the other end of a terminal went away
            self.lost(e)
            return b""
        if not data:
            self.ended()
        return data

    def send(self, views: Sequence[memoryview | bytes]) -> int:
        """Write some of *views*; returns how many bytes were taken, 0 when there is no room now."""
        try:
            return os.writev(self.write_fd, views)
        except BlockingIOError:
            return 0
        except OSError as e:
            self.lost(e)
            return 0

    def ended(self) -> None:
        """Input ended. By default output goes on: stdin may be /dev/null."""
        self._unwatch(self.read_fd)
        self.read_fd = -1

    def lost(self, error: OSError) -> None:
        """The host side failed: not connected any more."""
        if not self.absent:  # where somebody else may come it is no trouble
            log.warning("%s: %s", self.label, error)
        self.drop()

    def drop(self) -> None:
        """Forget the connection, and wait for the next one if there can be one."""
        self.on_drop()
        for fd in list(self._watches):
            self._unwatch(fd)
        self.set_connected(False)
        if self.absent:
            self.begin_soon(0.0)

    def set_connected(self, connected: bool) -> None:
        """Change ``connected``; the port hears of it in the next turn: it may be in the middle of ``send``."""
        if connected != self.connected:
            self.connected = connected
            if self._loop is not None:
                self._loop.call_soon(lambda: self._changed(connected))
        self._follow()

    def window_size(self) -> Size | None:
        """(columns, rows) of the terminal behind this, None if it is none or has no size."""
        return window_size(self.write_fd)

    def emergency(self, byte: bytes) -> None:
        """Write *byte* now or never. Any thread."""
        if self.connected:
            with contextlib.suppress(OSError):
                os.write(self.write_fd, byte)

    def close(self) -> None:
        """Stop watching: the loop does nothing for us any more. Subclasses then close what they opened. Idempotent."""
        self._closed = True
        self._changed = lambda connected: None
        if self._loop is not None:
            self._loop.barrier()
        if self._timer is not None:
            self._timer.cancel()
        self.connected = False
        for watch in list(self._watches.values()):
            watch.close()
        self._watches.clear()

    def _follow(self) -> None:
        """Watch the descriptors for what is wanted."""
        if self._loop is None:
            return
        read, write = (wanted and self.connected for wanted in self._wanted)
        events = {self.read_fd: 0, self.write_fd: 0}
        events[self.read_fd] |= READ if read else 0
        events[self.write_fd] |= WRITE if write else 0
        events[self.write_fd] |= HANG_UP if self.leaves and self.connected else 0
        for fd, wanted in events.items():
            if fd >= 0 and (wanted or fd in self._watches):
                if fd not in self._watches:
                    self._watches[fd] = FdWatch(self._loop, fd, self.on_ready)
                self._watch(fd, wanted)

    def _watch(self, fd: int, events: int) -> None:
        try:
            self._watches[fd].want(events)
        except PermissionError:  # epoll takes no regular files; they are always ready, and no terminal
            log.warning("%s: input from a regular file is not read", self.label)
            if fd == self.read_fd:
                self.ended()

    def _unwatch(self, fd: int) -> None:
        watch = self._watches.pop(fd, None)
        if watch is not None:
            watch.close()

    @property
    def reading(self) -> bool:
        """Whether input is wanted."""
        return self._wanted[0] or self.read_elsewhere()

    @property
    def plain_input(self) -> bool:
        """Whether all input comes from ``read_fd``."""
        return True

    def on_ready(self) -> None:
        """Something that is wanted is there; or the other side has gone, and nobody reads what it left."""
        if self.leaves:
            events = poll(self.write_fd, select.POLLIN | select.POLLRDHUP)
            gone = events & (select.POLLHUP | select.POLLRDHUP | select.POLLERR)
            if gone and not (events & select.POLLIN and self.reading):
                self.ended()
                return
        self._ready()


class StdioBackend(PortBackend):
    """This process's stdin and stdout: raw if they are a terminal. They are given back as they were."""

    moved_in_c = True
    sandbox_groups = (TERMINAL,)

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._terminal: Terminal | None = None

    def open(self) -> None:
        """Take stdin and stdout. Raises ConfigError when another device has them, HostError when they are closed."""
        self._terminal = Terminal(self.label)
        self.read_fd, self.write_fd = self._terminal.input, self._terminal.output

    def attach(self, loop: IoLoop, ready: Ready, changed: Changed) -> None:
        """Input comes from now on."""
        super().attach(loop, ready, changed)
        if self._terminal is not None:
            self._terminal.start(loop, on_quit=self.on_quit, on_resize=self.on_resize)

    def window_size(self) -> Size | None:
        """Standard output may be another file than the terminal."""
        return None if self._terminal is None else self._terminal.size

    def close(self) -> None:
        """Give them back."""
        super().close()
        terminal, self._terminal = self._terminal, None
        self.read_fd = self.write_fd = -1
        if terminal is not None:
            terminal.close()


class TtyBackend(PortBackend):
    """A terminal device, made raw and given back as it was."""

    moved_in_c = True
    sandbox_groups = (TERMINAL,)

    leaves = True

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label)
        self.path = path
        self._line: Line | None = None

    def open(self) -> None:
        """Open the terminal. Raises HostError when it is none."""
        try:
            self._line = open_terminal(self.path, self.label)
        except OSError as e:
            if e.errno == errno.ENOTTY:
                raise HostError(f"{self.path} is not a terminal") from e
            raise HostError.from_os(f"opening {self.path}", e) from e
        self.read_fd, self.write_fd = self._line.input, self._line.output

    def attach(self, loop: IoLoop, ready: Ready, changed: Changed) -> None:
        """Input comes from now on."""
        super().attach(loop, ready, changed)
        if self._line is not None:
            self._line.start(loop, resized=self.on_resize)

    def ended(self) -> None:
        """The line was hung up."""
        log.warning("%s: hung up", self.label)
        self.drop()

    def close(self) -> None:
        """Restore and close the terminal."""
        super().close()
        self.read_fd = self.write_fd = -1
        if self._line is not None:
            self._line.close()


class PtyBackend(PortBackend):
    """A new pseudo-terminal, connected while somebody has the other end open; its path is told on stderr."""

    moved_in_c = True

    leaves = True
    absent = select.POLLHUP

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.path = ""
        self._sizes: SizeWatch | None = None

    def open(self) -> None:
        """Make the pair. The other end is closed again, or we would never learn that its reader left."""
        try:
            master, other = os.openpty()
        except OSError as e:
            raise HostError.from_os("making a pty", e) from e
        try:
            self.path = os.ttyname(other)
            tty.setraw(other)
        finally:
            os.close(other)
        os.set_blocking(master, False)
        self.read_fd = self.write_fd = master
        say(f"{self.label}: {self.path}")

    def attach(self, loop: IoLoop, ready: Ready, changed: Changed) -> None:
        """The size that a reader sets is followed from now on."""
        super().attach(loop, ready, changed)
        self._sizes = SizeWatch(loop, self.window_size, self.on_resize)

    def ended(self) -> None:
        """As a terminal that was hung up."""
        self.drop()

    def close(self) -> None:
        """Close the pair."""
        if self._sizes is not None:
            self._sizes.close()
        super().close()
        fd, self.read_fd, self.write_fd = self.read_fd, -1, -1
        if fd >= 0:
            os.close(fd)


class FileBackend(PortBackend):
    """Output is appended to a file, or goes to whoever reads a FIFO; there is no input."""

    moved_in_c = True

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label)
        self.path = path

    def open(self) -> None:
        """Open or make the file; a FIFO must have a reader. Raises HostError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self.write_fd = open_or_make(self.path, flags)
        except OSError as e:
            raise HostError.from_os(f"opening {self.path}", e) from e
        kind = os.fstat(self.write_fd).st_mode
        if stat.S_ISREG(kind) and not one_user.take(self.write_fd):
            user = one_user.holder(self.path) or "another process"
            raise ConfigError(f"file {self.path} is in use by {user}", option=self.label)
        self.leaves = stat.S_ISFIFO(kind)
        self.absent = select.POLLERR if self.leaves else 0

    def ended(self) -> None:
        """A FIFO's reader left, another may come."""
        self.drop()

    def close(self) -> None:
        """Close the file."""
        super().close()
        fd, self.write_fd = self.write_fd, -1
        if fd >= 0:
            os.close(fd)
