"""Files that we share with whoever started us, read and written without waiting and without making them non-blocking.

O_NONBLOCK belongs to the open file, which our shell, our own log and the next program have, too: it would stay set when
we are stopped or gone. So terminals and pipes are opened anew. What can't be (a socket, a terminal of another user) is
asked each time not to wait, or written by a thread that may wait.
"""

import contextlib
import os
import select
import stat
import threading
from typing import TYPE_CHECKING

from acrn_dm.base.records import frozen

if TYPE_CHECKING:
    import socket

CLOSE_S = 1.0  # what is still in a relay's pipe has this long to get out
CHUNK = 4096
MSG_DONTWAIT = 0x40  # linux/socket.h; the library's module is for those who have a socket
PTMX = os.makedev(5, 2)  # opening it makes another pseudo-terminal


@frozen(kw_only=True, eq=False)
class Source:
    """Input. *fd* is for waiting only; it is non-blocking unless it is *shared* or a socket."""

    fd: int
    shared: bool = False
    sock: "socket.socket | None" = None

    def read(self, limit: int) -> bytes:
        """Up to *limit* bytes, b"" at the end. Raises BlockingIOError when there are none now, OSError."""
        if self.sock is not None:
            return self.sock.recv(limit, MSG_DONTWAIT)
        if self.shared and not _ready(self.fd, select.POLLIN):
            raise BlockingIOError
        return os.read(self.fd, limit)

    def close(self) -> None:
        """Close it."""
        if self.sock is not None:
            self.sock.close()
        else:
            os.close(self.fd)


@frozen(kw_only=True, eq=False)
class Sink:
    """Output. *fd* is non-blocking, or a plain file, which never blocks."""

    fd: int
    relay: threading.Thread | None = None

    def close(self) -> None:
        """Close it. What a relay has not written yet is lost if nobody takes it within a second."""
        os.close(self.fd)
        if self.relay is not None:
            self.relay.join(CLOSE_S)


def share_input(fd: int) -> Source:
    """Read where *fd* does. Raises OSError."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        from socket import socket  # noqa: PLC0415

        sock = socket(fileno=os.dup(fd))
        return Source(fd=sock.fileno(), sock=sock)
    again = _opened_anew(fd, os.O_RDONLY)
    return Source(fd=os.dup(fd), shared=True) if again is None else Source(fd=again)


def share_output(fd: int) -> Sink:
    """Write where *fd* does. Raises OSError."""
    mode = os.fstat(fd).st_mode
    again = _opened_anew(fd, os.O_WRONLY)
    if again is not None:
        return Sink(fd=again)
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd)):
        return Sink(fd=os.dup(fd))
    source, ours = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    relay = threading.Thread(target=_relay, args=(source, os.dup(fd)), name="output", daemon=True)
    relay.start()
    return Sink(fd=ours, relay=relay)


def _relay(source: int, to: int) -> None:
    """Write to *to* what comes from *source*. After an error, who writes into the pipe gets EPIPE."""
    with contextlib.suppress(OSError):
        while data := os.read(source, CHUNK):
            while data:
                try:
                    data = data[os.write(to, data) :]
                except BlockingIOError:  # somebody else made it so
                    _ready(to, select.POLLOUT, None)
    os.close(source)
    os.close(to)


def _opened_anew(fd: int, flags: int) -> int | None:
    """A non-blocking file of our own for the terminal or pipe behind *fd*; None where there can't be one."""
    status = os.fstat(fd)
    if not (stat.S_ISFIFO(status.st_mode) or os.isatty(fd)) or status.st_rdev == PTMX:
        return None
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _ready(fd: int, events: int, timeout: float | None = 0) -> bool:
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(timeout))
