"""What tests of ``acrn-dm-vhost-user`` share: the program with a console, and a client of our own making."""

import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.base.events.eventfd import drain
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import DriverRing, RingLayout
from tests.backends.user.user_rig import Daemon
from tests.patience import comes_true

HEADER = struct.Struct("<III")
NEED_REPLY = 8
MEMORY = 4 * MIB
USER = 0x7F00_0000_0000
VERSION_1, EVENT_IDX = 1 << 32, 1 << 29
REPLY_ACK, STATUS, SLOTS = ProtocolFeature.REPLY_ACK, ProtocolFeature.STATUS, ProtocolFeature.CONFIGURE_MEM_SLOTS


def console_daemon(folder: Path) -> Daemon:
    """The program, not yet started, with one port into a file and queues for 16."""
    argv = [sys.executable, "-m", "acrn_dm.export.vhost_user.cli", "console", f"--socket-path={folder / 's'}"]
    return Daemon([*argv, f"file:port0={folder / 'out'},max_ports=16"], folder / "s", folder / "log")


def message(code: int, payload: bytes = b"", flags: int = 1, size: int | None = None) -> bytes:
    return HEADER.pack(code, flags, len(payload) if size is None else size) + payload


@attrs.define(eq=False)
class Client:
    """A vhost-user client with memory of its own, which is also the memory its driver's rings are in."""

    socket: socket.socket
    fd: int
    ram: mmap.mmap
    opened: list[int] = attrs.field(factory=list)

    @classmethod
    def connect(cls, path: Path) -> "Client":
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(str(path))
        fd = os.memfd_create("ram")
        os.ftruncate(fd, MEMORY)
        return cls(peer, fd, mmap.mmap(fd, MEMORY))

    def close(self) -> None:
        self.socket.close()
        self.ram.close()
        for fd in (self.fd, *self.opened):
            os.close(fd)

    def eventfd(self) -> int:
        self.opened.append(os.eventfd(0, os.EFD_NONBLOCK))
        return self.opened[-1]

    def send(self, code: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = 1) -> None:
        socket.send_fds(self.socket, [HEADER.pack(code, flags, len(payload)) + payload], fds)

    def answer(self) -> bytes | None:
        """The payload of the next message, None if the connection ended."""
        try:
            head = self.socket.recv(HEADER.size, socket.MSG_WAITALL)
        except ConnectionResetError:
            return None
        if len(head) < HEADER.size:
            return None
        return self.socket.recv(HEADER.unpack(head)[2], socket.MSG_WAITALL)

    def ask(self, code: int, payload: bytes = b"") -> bytes | None:
        self.send(code, payload)
        return self.answer()

    def queues(self) -> int:
        """How many there are; answered when all that was sent before has been served."""
        answer = self.ask(Request.GET_QUEUE_NUM)
        assert answer is not None
        return int.from_bytes(answer, "little")

    def must(self, code: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """A request that is acknowledged."""
        self.send(code, payload, fds, flags=1 | NEED_REPLY)
        assert self.answer() == bytes(8), Request(code).name

    def negotiate(self, protocol: int = REPLY_ACK) -> None:
        self.send(Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol))
        self.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES))

    def share_memory(self, offset: int = 0) -> None:
        table = struct.pack("<IIQQQQ", 1, 0, 0, MEMORY - offset, USER, offset)
        self.must(Request.SET_MEM_TABLE, table, (self.fd,))

    # RingMemory, with the guest's address 0 at the file's start

    def read(self, gpa: int, length: int) -> bytes:
        return self.ram[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        self.ram[gpa : gpa + len(data)] = data

    def ring(
        self, index: int, gpa: int = 0x10000, *, enable: bool = True, base: int = 0
    ) -> tuple[DriverRing, int, int]:
        """Set up and start a ring; returns the driver's side and its kick and call."""
        layout = RingLayout.at(gpa, 64)
        driver = DriverRing(self, layout, event_idx=False, start=base)
        kick = self.start(index, layout, base)
        call = self.call(index)
        if enable:
            self.must(Request.SET_VRING_ENABLE, struct.pack("<II", index, 1))
            drain(call)  # the one for what another process may have left
        return driver, kick, call

    def start(self, index: int, layout: RingLayout, base: int) -> int:
        """Set up and start the ring at *layout*, which is neither enabled nor has a call; returns its kick."""
        kick = self.eventfd()
        self.must(Request.SET_VRING_NUM, struct.pack("<II", index, layout.size))
        self.must(Request.SET_VRING_BASE, struct.pack("<II", index, base))
        addresses = struct.pack("<IIQQQQ", index, 0, USER + layout.desc, USER + layout.used, USER + layout.avail, 0)
        self.must(Request.SET_VRING_ADDR, addresses)
        self.must(Request.SET_VRING_KICK, struct.pack("<Q", index), (kick,))
        return kick

    def call(self, index: int) -> int:
        """Give a ring an eventfd for interrupts, which is returned."""
        call = self.eventfd()
        self.must(Request.SET_VRING_CALL, struct.pack("<Q", index), (call,))
        return call


def say(client: Client, ring: DriverRing, text: bytes) -> None:
    """Put *text* into the ring, without a kick."""
    client.write(0x80000, text)
    ring.add_chain([(0x80000, len(text))])
    ring.publish()


def wait_used(ring: DriverRing, count: int) -> None:
    deadline = time.monotonic() + 10
    while ring.used_idx() != count:
        assert time.monotonic() < deadline, f"used index {ring.used_idx()}, expected {count}"
        time.sleep(0.001)


def descriptors(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def wait_descriptors(daemon: Daemon, before: int) -> None:
    deadline = time.monotonic() + 5
    while descriptors(daemon) > before:  # fewer: the first client was not all gone when they were counted
        assert time.monotonic() < deadline, f"{descriptors(daemon)} descriptors, {before} before"
        time.sleep(0.01)


def mapped(daemon: Daemon) -> int:
    """How many mappings of memory that is shared with a client *daemon* has."""
    assert daemon.process is not None
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    return sum(maps.count(f"memfd:{name}") for name in ("ram", "inflight", "region", "log"))


def quiet_descriptors(daemon: Daemon) -> int:
    """How many descriptors it has without a client."""
    assert comes_true(lambda: mapped(daemon) == 0)
    return descriptors(daemon)


@contextmanager
def leaving_nothing(daemon: Daemon, protocol: int) -> Iterator[Client]:
    """A client of *daemon* with these protocol features, after which that has what it had before."""
    before = quiet_descriptors(daemon)
    client = Client.connect(daemon.socket)
    client.negotiate(protocol)
    try:
        yield client
    finally:
        client.close()
    wait_descriptors(daemon, before)
    assert mapped(daemon) == 0
    assert "Traceback" not in daemon.log.read_text()


def serves(daemon: Daemon) -> bool:
    client = Client.connect(daemon.socket)
    try:
        return client.queues() > 1
    finally:
        client.close()
