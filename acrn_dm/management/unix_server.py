"""A stream server on a UNIX socket, served by an I/O loop: few clients, bounded buffers, nobody waits for anybody.

Descriptors that a client attaches to its messages are never received: the kernel closes them.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from acrn_dm.errors import ConfigError, HostError
from acrn_dm.ioloop import READ, WRITE, IoLoop

log = logging.getLogger(__name__)

MODE = 0o600  # who may connect may end the machine
MAX_PATH = 107  # sun_path without its NUL (unix(7))
RECEIVE_BYTES = 4096
MAX_UNSENT = 64 << 10  # a client that lets so much lie is not reading
BACKLOG = 4
RETRY_S = 1.0  # after an accept that found no descriptor free


class Session(Protocol):
    """One client's conversation. Called on the loop's thread."""

    def received(self, data: bytes) -> None:
        """Some bytes have come, cut anywhere."""

    def closed(self) -> None:
        """The client is gone; nothing can be sent any more."""


class Connection:
    """Our end of one client."""

    def __init__(self, loop: IoLoop, sock: socket.socket, gone: Callable[["Connection"], None]) -> None:
        self.session: Session | None = None
        self._loop = loop
        self._socket = sock
        self._gone = gone
        self._unsent = bytearray()
        self._watching = READ
        loop.add(sock.fileno(), self._ready)

    @property
    def is_open(self) -> bool:
        """Whether the client can still be reached."""
        return self._socket.fileno() >= 0

    def send(self, data: bytes) -> None:
        """Send, now or when the client reads on; one that does not is dropped."""
        if not self.is_open:
            return
        self._unsent += data
        self._flush()
        if len(self._unsent) > MAX_UNSENT:
            log.warning("a client of a control socket does not read: dropped")
            self.close()

    def close(self) -> None:
        """Hang up; what could be sent at once has been. Idempotent."""
        if not self.is_open:
            return
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        self._gone(self)
        if self.session is not None:
            self.session.closed()

    def _ready(self) -> None:
        if self._unsent:
            self._flush()
        if self.is_open:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self.session is not None:
            self.session.received(data)

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        wanted = READ | WRITE if self._unsent else READ
        if wanted != self._watching:
            self._watching = wanted
            self._loop.modify(self._socket.fileno(), wanted)


class UnixServer:
    """Listens at *path*. *make_session* starts the conversation with each client; there are at most *most* of them."""

    def __init__(self, loop: IoLoop, path: Path, make_session: Callable[[Connection], Session], *, most: int) -> None:
        """Raises ConfigError for a path that can't be used, and HostError."""
        self.path = path
        self._loop = loop
        self._make_session = make_session
        self._most = most
        self._clients: list[Connection] = []
        self._socket = listen(path)
        status = path.lstat()
        self._inode = (status.st_dev, status.st_ino)
        loop.add(self._socket.fileno(), self._accept)

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def close(self) -> None:
        """Hang up on everybody and remove the path, if it is still ours. Idempotent."""
        if self._socket.fileno() < 0:
            return
        for client in tuple(self._clients):
            client.close()
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._inode:
                self.path.unlink()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as e:
            self._pause(e)
            return
        if len(self._clients) >= self._most:
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(self._loop, sock, self._clients.remove)
        self._clients.append(connection)
        connection.session = self._make_session(connection)

    def _pause(self, error: OSError) -> None:
        """Without a descriptor to accept with, the listening socket would stay ready and keep the loop busy."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            return  # the client has gone already
        log.error("%s: accepting a client: %s", self.path, error.strerror)
        self._loop.modify(self._socket.fileno(), 0)

        def resume() -> None:
            if self._socket.fileno() >= 0:
                self._loop.modify(self._socket.fileno(), READ)

        self._loop.call_later(RETRY_S, resume)


def listen(path: Path) -> socket.socket:
    """Make the listening socket at *path*, whose mode keeps other users out. Raises ConfigError and HostError.

    A socket that nobody listens on, left behind by a process that was killed, is replaced; nothing else is removed.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(f"a socket's path has at most {MAX_PATH} bytes", value=str(path))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), MODE)  # what bind makes has these bits at most
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise HostError.from_os(f"listening at {path}", e) from e
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # not there, or bind will say what is wrong
    if not stat.S_ISSOCK(mode):
        raise ConfigError("is there already, and is no socket", value=str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        error = probe.connect_ex(os.fspath(path))
    if error != errno.ECONNREFUSED:
        raise ConfigError("somebody listens there already", value=str(path))
    with contextlib.suppress(OSError):
        path.unlink()
