"""A stream server on a UNIX socket, served by an I/O loop: few clients, bounded buffers, nobody waits for anybody.

Descriptors that a client attaches to its messages are never received: the kernel closes them.
"""

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop
from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.base.sockets.unix_listener import UnixListener

log = logging.getLogger(__name__)

RECEIVE_BYTES = 4096
MAX_UNSENT = 64 << 10  # a client that lets so much lie is not reading


class Session(Protocol):
    """One client's conversation. Called on the loop's thread."""

    def received(self, data: bytes) -> None:
        """Some bytes have come, cut anywhere."""

    def closed(self) -> None:
        """The client is gone; nothing can be sent any more."""


class Connection:
    """Our end of one client."""

    def __init__(
        self,
        loop: IoLoop,
        sock: socket.socket,
        *,
        heard: Callable[["Connection"], object],
        gone: Callable[["Connection"], object],
    ) -> None:
        self.session: Session | None = None
        self.waits = False  # for events: it is silent for good reason
        self._loop = loop
        self._socket = sock
        self._heard, self._gone = heard, gone
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
            self._heard(self)
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
    """The listening socket at *path* and its clients. *make_session* starts the conversation with each client; there
    are at most *most* of them.

    When one more comes, the one that has been silent longest makes way: idle clients can't lock others out. One that
    waits for events is meant to be silent and stays.
    """

    def __init__(
        self,
        loop: IoLoop,
        path: Path,
        make_session: Callable[[Connection], Session],
        *,
        most: int,
        option: str | None = None,
    ) -> None:
        """*option* is who names the path. Raises ConfigError for a path that can't be used, and HostError."""
        self._loop = loop
        self._make_session = make_session
        self._most = most
        self._clients: list[Connection] = []  # who spoke last is last
        self._listener = UnixListener(path, option)
        self._acceptor = Acceptor(loop, self._listener.socket, str(path), self._accepted)

    @property
    def path(self) -> Path:
        """The socket's."""
        return self._listener.path

    def close(self) -> None:
        """Hang up on everybody and remove the path, if it is still ours. Idempotent."""
        for client in tuple(self._clients):
            client.close()
        self._acceptor.close()
        self._listener.close()

    def _accepted(self, sock: socket.socket) -> None:
        if len(self._clients) >= self._most:
            self._make_room()
        connection = Connection(self._loop, sock, heard=self._heard, gone=self._clients.remove)
        self._clients.append(connection)
        connection.session = self._make_session(connection)

    def _heard(self, client: Connection) -> None:
        self._clients.remove(client)
        self._clients.append(client)

    def _make_room(self) -> None:
        idle = next((client for client in self._clients if not client.waits), self._clients[0])
        log.info("%s: a client that was silent makes way for another", self.path)
        idle.close()
