"""What tests of vfio-user share: a function that is served in this process, and a client of our own making."""

import array
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.export.vfio_user.server import Server
from acrn_dm.pci.function import PciFunction
from tests.patience import comes_true

HEADER = struct.Struct("<HHIII")
VERSION, DMA_MAP, DMA_UNMAP, INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS, READ, WRITE = range(1, 11)
DMA_READ, DMA_WRITE, RESET, MULTI = 11, 12, 13, 15
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x21
INTX, MSI, MSIX = range(3)
NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = 1, 2, 4, 8, 16, 32
CONFIG = 7
SECONDS = 30
CAPABILITIES = {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1 << 20}


@attrs.frozen
class Answer:
    """What came for a command: the errno of an error, else the payload."""

    error: int
    payload: bytes

    def struct(self, form: str) -> tuple[int, ...]:
        assert not self.error
        return struct.unpack(form, self.payload)


@attrs.define(eq=False)
class Client:
    """A vfio-user client; memory that it maps without a file is in ``ram``, by address."""

    socket: socket.socket
    ram: dict[int, bytearray] = attrs.field(factory=dict)
    asked: list[int] = attrs.field(factory=list)  # DMA commands that came
    ids: int = 0
    fds: list[int] = attrs.field(factory=list)

    @classmethod
    def connect(cls, path: Path) -> Self:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(SECONDS)
        peer.connect(str(path))
        return cls(peer)

    def close(self) -> None:
        self.socket.close()
        while self.fds:
            os.close(self.fds.pop())

    def post(self, command: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = NO_REPLY) -> int:
        self.ids = (self.ids + 1) % 0x10000
        data = HEADER.pack(self.ids, command, HEADER.size + len(payload), flags, 0) + payload
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):  # sending nothing fails, too, when the server has left
            self.socket.sendall(data[sent:])
        return self.ids

    def ask(self, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Answer:
        """The answer to a command; what the device asks for meanwhile is served."""
        ident = self.post(command, payload, fds, flags=0)
        while True:
            got, code, flags, error, body = self.next()
            if flags & 0xF == REPLY:
                assert (got, code) == (ident, command)
                assert flags in (REPLY, ERROR)
                assert bool(error) == (flags == ERROR)
                assert not (error and body)
                return Answer(error, body)
            self.serve(got, code, body)

    def next(self) -> tuple[int, int, int, int, bytes]:
        ident, code, size, flags, error = HEADER.unpack(self.exactly(HEADER.size))
        return ident, code, flags, error, self.exactly(size - HEADER.size)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def serve(self, ident: int, command: int, body: bytes) -> None:
        """Answer a DMA command out of ``ram``."""
        self.asked.append(command)
        address, count = struct.unpack_from("<QQ", body)
        start = max(start for start in self.ram if start <= address)
        at = slice(address - start, address - start + count)
        if command == DMA_READ:
            answer = body + bytes(self.ram[start][at])
        else:
            self.ram[start][at], answer = body[16:], body[:16]
        self.socket.sendall(HEADER.pack(ident, command, HEADER.size + len(answer), REPLY, 0) + answer)

    def greet(self, **capabilities: object) -> dict[str, object]:
        text = json.dumps({"capabilities": {**CAPABILITIES, "write_multiple": True, **capabilities}})
        request = struct.pack("<HH", 0, 0) + text.encode() + b"\0"
        answer = self.ask(VERSION, request)
        assert answer.payload[:4] == bytes(4)
        assert len(answer.payload) <= len(request)
        said: dict[str, object] = json.loads(answer.payload[4:-1])["capabilities"]
        return said

    def read(self, region: int, offset: int, count: int = 4) -> int:
        answer = self.ask(READ, struct.pack("<QII", offset, region, count))
        assert answer.payload[:16] == struct.pack("<QII", offset, region, count)
        assert len(answer.payload) == 16 + count
        return int.from_bytes(answer.payload[16:], "little")

    def write(self, region: int, offset: int, value: int, count: int = 4, *, posted: bool = False) -> None:
        payload = struct.pack("<QII", offset, region, count) + value.to_bytes(count, "little")
        if posted:
            self.post(WRITE, payload)
        else:
            assert self.ask(WRITE, payload).payload == payload[:16]

    def map(self, address: int, size: int, fd: int | None = None, offset: int = 0, flags: int = 3) -> int:
        """The errno of a DMA_MAP."""
        payload = struct.pack("<IIQQQ", 32, flags, offset, address, size)
        return self.ask(DMA_MAP, payload, () if fd is None else (fd,)).error

    def unmap(self, address: int, size: int, flags: int = 0) -> int:
        return self.ask(DMA_UNMAP, struct.pack("<IIQQ", 24, flags, address, size)).error

    def irqs(self, index: int, flags: int, start: int = 0, count: int = 1, fds: tuple[int, ...] = ()) -> int:
        return self.ask(SET_IRQS, struct.pack("<IIIII", 20, flags, index, start, count), fds).error

    def eventfd(self, index: int, vector: int = 0) -> int:
        """A new eventfd, the vector's from now on."""
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.fds.append(fd)
        assert not self.irqs(index, EVENTFD | TRIGGER, vector, 1, (fd,))
        return fd

    def memfd(self, size: int) -> int:
        fd = os.memfd_create("ram")
        os.ftruncate(fd, size)
        self.fds.append(fd)
        return fd


def count(fd: int) -> int:
    """How often an eventfd was written since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def rings(fd: int) -> bool:
    """Whether an eventfd is written before long."""
    return comes_true(lambda: count(fd) > 0)


@contextlib.contextmanager
def served(function: PciFunction, path: Path, *, tells_writes: bool = False) -> Iterator[ExportedFunction]:
    """*function* at the socket *path*, on a loop that runs by itself."""
    loop = IoLoop("main")
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        exported = ExportedFunction(function, loop, loop.stop, tells_writes=tells_writes)
        stack.callback(exported.close)
        listener = stack.enter_context(contextlib.closing(UnixListener(path, "--socket-path")))
        exported.open()
        server = Server(exported, listener.socket, lambda: None)
        loop.start()
        stack.callback(_on, loop, server)
        yield exported


def _on(loop: IoLoop, server: Server) -> None:
    done = threading.Event()

    def close() -> None:
        server.close()
        done.set()

    loop.call_soon(close)
    assert done.wait(SECONDS)
