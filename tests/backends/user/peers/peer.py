"""A vhost-user back-end that does what a test tells it, well or badly. It moves no data."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request

HEADER = struct.Struct("<III")
REPLY, NEED_REPLY = 4, 8
BLK_FEATURES = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 9 | 1 << 11 | PROTOCOL_FEATURES  # FLUSH, CONFIG_WCE
ALL = ProtocolFeature(sum(ProtocolFeature))
NO_NOTES = ALL & ~ProtocolFeature.INFLIGHT_SHMFD
TIMEOUT_S = 10.0


@attrs.frozen
class Received:
    """A request with what came along; ``fds`` are the peer's to close."""

    code: int
    flags: int
    payload: bytes
    fds: tuple[int, ...]


@attrs.define(eq=False)
class Connection:
    """One accepted connection, blocking."""

    socket: socket.socket

    def receive(self) -> Received | None:
        """The next request, None at the end."""
        head, fds = self._read(HEADER.size)
        if head is None:
            return None
        code, flags, size = HEADER.unpack(head)
        payload, more = self._read(size) if size else (b"", ())
        return Received(code, flags, payload or b"", (*fds, *more))

    def send(self, code: int, payload: bytes, flags: int = REPLY | 1, fds: tuple[int, ...] = ()) -> None:
        """Send a message in one piece."""
        socket.send_fds(self.socket, [HEADER.pack(code, flags, len(payload)) + payload], fds)

    def _read(self, size: int) -> tuple[bytes | None, tuple[int, ...]]:
        data, fds = b"", []
        while len(data) < size:
            part, new, _, _ = socket.recv_fds(self.socket, size - len(data), 16)
            fds += new
            if not part:
                return None, tuple(fds)
            data += part
        return data, tuple(fds)


Answer = Callable[[Connection, Received], None]


class Peer:
    """Listens at *path* and serves one connection after another on a thread. *answers* replace the good ones.

    An answer that raises ``ConnectionError`` ends the connection, as does silence of *patience* seconds.
    ``seen`` are all requests so far.
    """

    def __init__(
        self,
        path: Path,
        answers: Mapping[int, Answer] | None = None,
        *,
        features: int = BLK_FEATURES,
        protocol: ProtocolFeature = ALL,
        config: bytes = bytes(60),
        patience: float | None = TIMEOUT_S,
    ) -> None:
        self.path = path
        self._patience = patience
        self.answers = dict(answers or {})
        self.features, self.protocol, self.config = features, protocol, config
        self.seen: list[Received] = []
        self.back: Connection | None = None  # the channel for our own requests
        self.connections = 0
        self.status = 0
        self.changed = threading.Condition()
        self._fds: list[int] = []
        self._open()
        self._current: Connection | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self.hang_up()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        for fd in self._fds:
            os.close(fd)
        if self.back is not None:
            self.back.socket.close()

    def _open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()

    def _next(self) -> socket.socket:
        """The next connection. Raises OSError at the end."""
        return self._listener.accept()[0]

    def _end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()

    def hang_up(self) -> None:
        """End the connection from here."""
        current = self._current
        if current is not None:
            with contextlib.suppress(OSError):
                current.socket.shutdown(socket.SHUT_RDWR)

    def codes(self) -> list[int]:
        """Requests so far."""
        return [request.code for request in self.seen]

    def last(self, code: int) -> Received:
        """The latest request of that kind."""
        return [request for request in self.seen if request.code == code][-1]

    def say(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send bytes on the connection, unasked."""
        assert self._current is not None
        socket.send_fds(self._current.socket, [data], fds)

    def inflight_region(self, size: int = 8192) -> int:
        """A new region; stays open until the end."""
        fd = os.memfd_create("inflight")
        os.ftruncate(fd, size)
        self._fds.append(fd)
        return fd

    def _run(self) -> None:
        while True:
            try:
                accepted = self._next()
            except OSError:
                return
            with accepted:
                accepted.settimeout(self._patience)
                self._current = Connection(accepted)
                self.connections += 1
                with contextlib.suppress(OSError):
                    self._serve(self._current)
                self._current = None

    def _serve(self, connection: Connection) -> None:
        while (request := connection.receive()) is not None:
            self._fds += request.fds
            with self.changed:
                self.seen.append(request)
                self.changed.notify_all()
            self.answers.get(request.code, self.answer_well)(connection, request)

    def answer_well(self, connection: Connection, request: Received) -> None:
        """As a good back-end."""
        u64 = {
            Request.GET_FEATURES: self.features,
            Request.GET_PROTOCOL_FEATURES: int(self.protocol),
            Request.GET_QUEUE_NUM: 64,
            Request.GET_MAX_MEM_SLOTS: 8,
            Request.GET_STATUS: self.status,
        }.get(Request(request.code))
        if u64 is not None:
            connection.send(request.code, struct.pack("<Q", u64))
        elif request.code == Request.GET_CONFIG:
            connection.send(request.code, request.payload[:12] + self.config)
        elif request.code == Request.GET_VRING_BASE:
            connection.send(request.code, request.payload[:4] + bytes(4))
        elif request.code == Request.GET_INFLIGHT_FD:
            connection.send(request.code, struct.pack("<QQHHI", 8192, 0, 1, 256, 0), fds=(self.inflight_region(),))
        else:
            self._note(request)
            if request.flags & NEED_REPLY:
                connection.send(request.code, bytes(8))

    def _note(self, request: Received) -> None:
        if request.code == Request.SET_STATUS:
            self.status = struct.unpack("<Q", request.payload)[0]
        elif request.code == Request.SET_BACKEND_REQ_FD:
            if self.back is not None:
                self.back.socket.close()
            self.back = Connection(socket.socket(fileno=os.dup(request.fds[0])))
            self.back.socket.settimeout(TIMEOUT_S)
