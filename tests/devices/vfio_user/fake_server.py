"""A vfio-user server that does what a test tells it, well or badly; it knows the wire by itself."""

import array
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import attrs

HEADER = struct.Struct("<HHIII")
REGION_INFO, REGION = struct.Struct("<IIIIQQ"), struct.Struct("<QII")
VERSION, DMA_MAP, DMA_UNMAP, INFO, GET_REGION, IO_FDS, GET_IRQ, SET_IRQS, READ, WRITE = range(1, 11)
DMA_READ, DMA_WRITE, RESET = 11, 12, 13
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x21
CONFIG = 7
PATIENCE_S = 20.0
MSIX_AT, EXPRESS_AT = 0x40, 0x60
VECTORS = 4


def config_space(*, bars: Mapping[int, int] | None = None, size: int = 256, **capabilities: bytes) -> bytearray:
    """A configuration space: *bars* are their registers; *capabilities* stand at ``c40``, ``c60`` ..., linked in that
    order; the pointer is in their second byte already if it is not 0.
    """
    config = bytearray(size)
    config[:4] = struct.pack("<HH", 0x1D0F, 0x4321)
    config[6:8] = struct.pack("<H", 0x10 if capabilities else 0)
    config[8:12] = struct.pack("<I", 0x08800007)
    config[0x2C:0x30] = struct.pack("<HH", 0x1D0F, 0x8765)
    config[0x3D] = 1
    for index, register in (bars or {0: 0, 1: 0}).items():
        config[0x10 + 4 * index :][:4] = struct.pack("<I", register)
        config[0x10 + 4 * index : 0x14 + 4 * index] = struct.pack("<I", register)
    places = [int(name[1:], 16) for name in capabilities]
    config[0x34] = places[0] if places else 0
    for at, then, body in zip(places, [*places[1:], 0], capabilities.values(), strict=False):
        config[at : at + len(body)] = body
        config[at + 1] = config[at + 1] or then
    return config


def msix(table: int = 1, pba: int = 0x801, vectors: int = VECTORS) -> bytes:
    """The capability, table in BAR 1 at 0, pending bits at 0x800."""
    return struct.pack("<BBHII", 0x11, 0, vectors - 1, table, pba)


@attrs.frozen
class Request:
    """A command; its descriptors are the server's to close."""

    ident: int
    command: int
    flags: int
    payload: bytes
    fds: tuple[int, ...] = ()


Answer = Callable[["FakeServer", Request], None]


@attrs.define(eq=False)
class FakeServer:
    """Serves one connection after another at *path*, on a thread. *answers* replace the good ones."""

    path: Path
    answers: dict[int, Answer] = attrs.field(factory=dict)
    config: bytearray = attrs.field(factory=lambda: config_space(c40=msix()))
    sizes: dict[int, int] = attrs.field(factory=lambda: {0: 4096, 1: 4096})
    irqs: tuple[int, ...] = (1, 0, VECTORS, 0, 0)
    capabilities: dict[str, object] = attrs.field(factory=lambda: {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20})
    bars: dict[int, bytearray] = attrs.field(factory=dict)
    seen: list[Request] = attrs.field(factory=list)
    eventfds: dict[tuple[int, int], int] = attrs.field(factory=dict)
    replies: dict[int, tuple[int, bytes]] = attrs.field(factory=dict)  # to requests of ours: errno, payload
    over: bool = False
    changed: threading.Condition = attrs.field(factory=threading.Condition)
    _listener: socket.socket = attrs.field(factory=lambda: socket.socket(socket.AF_UNIX))
    _thread: threading.Thread | None = None
    _peer: socket.socket | None = None
    _fds: list[int] = attrs.field(factory=list)

    def __enter__(self) -> Self:
        self.bars = {index: bytearray(min(size, 4096)) for index, size in self.sizes.items()}
        self.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over = True
        with contextlib.suppress(OSError):  # one that connects
            self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._listener.close()
        for fd in {*self._fds}:
            os.close(fd)

    def listen(self) -> None:
        """Be there."""
        self._listener.bind(str(self.path))
        self._listener.listen()

    def accept(self) -> socket.socket:
        """The next connection. Raises OSError after the end."""
        return self._listener.accept()[0]

    def hang_up(self) -> None:
        """End the connection."""
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)

    def payloads(self, command: int) -> list[bytes]:
        """Of all requests of that kind so far."""
        with self.changed:
            return [request.payload for request in self.seen if request.command == command]

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Bytes as they are."""
        assert self._peer is not None
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._peer.sendmsg([data], beside)

    def reply(self, to: Request, payload: bytes = b"", *, error: int = 0, fds: tuple[int, ...] = ()) -> None:
        """The answer to *to*."""
        if not to.flags & NO_REPLY:
            flags = ERROR if error else REPLY
            self.send(HEADER.pack(to.ident, to.command, HEADER.size + len(payload), flags, error) + payload, fds)

    def ask(self, ident: int, command: int, payload: bytes) -> tuple[int, bytes]:
        """Errno and payload of the client's answer to a request of ours."""
        self.send(HEADER.pack(ident, command, HEADER.size + len(payload), 0, 0) + payload)
        with self.changed:
            assert self.changed.wait_for(lambda: ident in self.replies, PATIENCE_S)
            return self.replies.pop(ident)

    def interrupt(self, index: int, vector: int = 0) -> None:
        """Write the eventfd of a vector."""
        with self.changed:
            os.eventfd_write(self.eventfds[index, vector], 1)

    def good(self, request: Request) -> None:
        """What a right server does."""
        body = request.payload
        if request.command == VERSION:
            text = json.dumps({"capabilities": self.capabilities}).encode()
            self.reply(request, struct.pack("<HH", 0, 0) + text + b"\0")
        elif request.command == INFO:
            self.reply(request, struct.pack("<IIII", 16, 3, 9, 5))
        elif request.command == GET_REGION:
            index = struct.unpack_from("<I", body, 8)[0]
            size = len(self.config) if index == CONFIG else self.sizes.get(index, 0)
            self.reply(request, REGION_INFO.pack(32, 3 if size else 0, index, 0, size, index << 40))
        elif request.command == GET_IRQ:
            index = struct.unpack_from("<I", body, 8)[0]
            self.reply(request, struct.pack("<IIII", 16, 1, index, self.irqs[index]))
        elif request.command == READ:
            offset, region, count = REGION.unpack(body)
            self.reply(request, body + self.region(region)[offset : offset + count])
        elif request.command == WRITE:
            offset, region, count = REGION.unpack_from(body)
            self.region(region)[offset : offset + count] = body[REGION.size :]
            self.reply(request, body[: REGION.size])
        else:
            if request.command == SET_IRQS:
                self._set_irqs(request)
            self.reply(request)

    def region(self, index: int) -> bytearray:
        """Its bytes."""
        return self.config if index == CONFIG else self.bars[index]

    def _set_irqs(self, request: Request) -> None:
        _, flags, index, start, count = struct.unpack_from("<IIIII", request.payload)
        with self.changed:
            if not count:
                self.eventfds = {key: fd for key, fd in self.eventfds.items() if key[0] != index}
            if flags & 4:
                self.eventfds.update({(index, start + n): fd for n, fd in enumerate(request.fds)})

    def _run(self) -> None:
        while True:
            try:
                peer = self.accept()
            except OSError:
                return
            self._peer = peer
            with contextlib.suppress(OSError), peer:
                while (request := self._receive(peer)) is not None:
                    self._serve(request)

    def _serve(self, request: Request) -> None:
        with self.changed:
            if request.flags & 0xF == REPLY:
                error = 1 if request.flags & 0x20 else 0
                self.replies[request.ident] = (error and request.flags >> 8, request.payload)
                self.changed.notify_all()
                return
            self.seen.append(request)
            self._fds += request.fds
            self.changed.notify_all()
        self.answers.get(request.command, FakeServer.good)(self, request)

    def _receive(self, peer: socket.socket) -> Request | None:
        head, fds = _exactly(peer, HEADER.size)
        if head is None:
            return None
        ident, command, size, flags, error = HEADER.unpack(head)
        body, more = _exactly(peer, size - HEADER.size)
        return None if body is None else Request(ident, command, flags | error << 8, body, (*fds, *more))


def _exactly(peer: socket.socket, size: int) -> tuple[bytes | None, tuple[int, ...]]:
    data, fds = b"", []
    while len(data) < size:
        part, new, _, _ = socket.recv_fds(peer, size - len(data), 16)
        fds += new
        if not part:
            return None, tuple(fds)
        data += part
    return data, tuple(fds)
