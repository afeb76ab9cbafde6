"""Clients with MULTIPORT at the console back-end: what their driver has said holds while they stop and go on."""

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.testing import DriverRing, RingLayout
from tests.backends.user.user_rig import Daemon, listens
from tests.devices.virtio_console.console_rig import DEVICE_ADD, DEVICE_READY, PORT_NAME, PORT_OPEN, PORT_READY
from tests.export.vhost_user.export_rig import MEMORY, REPLY_ACK, SLOTS, STATUS, USER, VERSION_1, Client, wait_used

MULTIPORT = 1 << 1
INPUT, OUTPUT, TO_GUEST, FROM_GUEST = range(4)
RINGS = (INPUT, OUTPUT, TO_GUEST, FROM_GUEST)
BUFFERS = 0x10_0000
READY, DRIVER_OK = 11, 4
ROOM = 60_000
RESET_DEVICE = ProtocolFeature.RESET_DEVICE


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    argv = [sys.executable, "-m", "acrn_dm.export.vhost_user.cli", "console", f"--socket-path={tmp_path / 's'}"]
    daemon = Daemon([*argv, f"socket:port0={tmp_path / 'port0'}:server"], tmp_path / "s", tmp_path / "log")
    daemon.start()
    yield daemon
    daemon.kill()


@attrs.define(eq=False)
class Guest:
    """A client and the driver in its guest. Rings are set up anew for each driver, and again after each stop."""

    client: Client
    protocol: int
    rings: dict[int, DriverRing] = attrs.field(factory=dict)
    kicks: dict[int, int] = attrs.field(factory=dict)
    heap: int = BUFFERS

    def negotiate(self) -> None:
        self.client.send(Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", self.protocol))
        self.client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES | MULTIPORT))
        self.client.share_memory()

    def start(self) -> None:
        """A driver that has just loaded."""
        for index in RINGS:
            self.client.write(0x10000 * (index + 1), bytes(0x10000))
            self.rings[index] = DriverRing(self.client, RingLayout.at(0x10000 * (index + 1), 64))
        self.go_on(dict.fromkeys(RINGS, 0))

    def status(self, status: int) -> None:
        if self.protocol & STATUS:
            self.client.must(Request.SET_STATUS, struct.pack("<Q", status))

    def stop(self) -> dict[int, int]:
        """As QEMU does; the positions."""
        positions = {}
        for index in RINGS:
            answer = self.client.ask(Request.GET_VRING_BASE, struct.pack("<II", index, 0))
            assert answer is not None
            positions[index] = struct.unpack("<II", answer)[1]
        self.status(0)
        return positions

    def go_on(self, positions: dict[int, int]) -> None:
        """Start the rings where they were; the driver has noticed nothing."""
        for index, base in positions.items():
            at, kick = self.rings[index].layout, self.client.eventfd()
            self.kicks[index] = kick
            self.client.must(Request.SET_VRING_NUM, struct.pack("<II", index, 64))
            self.client.must(Request.SET_VRING_BASE, struct.pack("<II", index, base))
            places = struct.pack("<IIQQQQ", index, 0, USER + at.desc, USER + at.used, USER + at.avail, 0)
            self.client.must(Request.SET_VRING_ADDR, places)
            self.client.must(Request.SET_VRING_KICK, struct.pack("<Q", index), (kick,))
            self.client.must(Request.SET_VRING_ENABLE, struct.pack("<II", index, 1))
        self.status(READY | DRIVER_OK)

    def post(self, index: int, data: bytes = b"") -> int:
        """Give the device *data*, or a buffer; its address."""
        at, self.heap = self.heap, self.heap + ROOM
        ring = self.rings[index]
        self.client.write(at, data)
        ring.add_chain([(at, len(data))] if data else [], [] if data else [(at, ROOM)])
        ring.publish()
        os.eventfd_write(self.kicks[index], 1)
        return at

    def bring_up(self) -> None:
        """What a driver says once."""
        self.start()
        for event in (DEVICE_READY, PORT_READY, PORT_OPEN):
            self.post(FROM_GUEST, struct.pack("<IHH", 0, event, 1))
        wait_used(self.rings[FROM_GUEST], 3)

    def told(self, count: int) -> list[int]:
        """The events of the next *count* control messages."""
        ring = self.rings[TO_GUEST]
        places = [self.post(TO_GUEST) for _ in range(count)]
        wait_used(ring, ring.next_avail)
        return [struct.unpack("<IHH", self.client.read(at, 8))[1] for at in places]

    def input(self) -> bytes:
        """What the host sends into the next buffer."""
        ring = self.rings[INPUT]
        at = self.post(INPUT)
        wait_used(ring, ring.next_avail)
        return self.client.read(at, ring.used_element(ring.next_avail - 1)[1])


INTRODUCTION = [DEVICE_ADD, PORT_NAME, PORT_OPEN]  # of a port whose host side is connected


@pytest.fixture(params=[REPLY_ACK, REPLY_ACK | STATUS], ids=["plain", "status"])
def guest(request: pytest.FixtureRequest, daemon: Daemon, host: socket.socket) -> Iterator[Guest]:
    """Its driver has opened the port and knows that somebody is there."""
    client = Client.connect(daemon.socket)
    guest = Guest(client, request.param | RESET_DEVICE | SLOTS)
    guest.negotiate()
    guest.bring_up()
    assert sorted(guest.told(3)) == sorted(INTRODUCTION)
    yield guest
    client.close()


@pytest.fixture
def host(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as host:
        path = daemon.socket.parent / "port0"
        deadline = time.monotonic() + 10
        while not listens(path):  # the port begins to listen when its loop runs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        host.connect(str(path))
        yield host


def test_driver_that_was_stopped_goes_on_with_its_open_port(guest: Guest, host: socket.socket) -> None:
    host.send(b"before")
    assert guest.input() == b"before"
    guest.go_on(guest.stop())
    host.send(b"after")
    assert guest.input() == b"after"


def test_memory_that_comes_while_the_rings_run_closes_no_port(guest: Guest, host: socket.socket) -> None:
    region = struct.pack("<5Q", 0, MEMORY, 4096, 2 * USER, 0)
    guest.client.must(Request.ADD_MEM_REG, region, (guest.client.fd,))
    host.send(b"after")
    assert guest.input() == b"after"
    guest.client.share_memory()
    host.send(b"again")
    assert guest.input() == b"again"


@pytest.mark.parametrize("says_so", [True, False])
def test_driver_that_resets_is_told_everything_again(guest: Guest, host: socket.socket, says_so: bool) -> None:
    """Without RESET_DEVICE its rings begin at 0, and not where they were."""
    guest.stop()
    if says_so:
        guest.client.must(Request.RESET_DEVICE)
    guest.start()
    host.send(b"early")
    at = guest.post(INPUT)
    guest.post(FROM_GUEST, struct.pack("<IHH", 0, DEVICE_READY, 1))
    guest.post(FROM_GUEST, struct.pack("<IHH", 0, PORT_READY, 1))
    assert sorted(guest.told(3)) == sorted(INTRODUCTION)
    assert guest.rings[INPUT].used_idx() == 0, "the next driver has not opened it"
    guest.post(FROM_GUEST, struct.pack("<IHH", 0, PORT_OPEN, 1))
    wait_used(guest.rings[INPUT], 1)
    assert guest.client.read(at, 5) == b"early"


def test_next_client_is_told_everything_again(guest: Guest, daemon: Daemon, host: socket.socket) -> None:
    guest.client.socket.close()
    client = Client.connect(daemon.socket)
    other = Guest(client, guest.protocol)
    other.negotiate()
    other.bring_up()
    assert sorted(other.told(3)) == sorted(INTRODUCTION)
    client.close()


def test_chain_that_was_half_written_when_it_stopped_is_not_repeated(guest: Guest, host: socket.socket) -> None:
    host.setblocking(False)
    chains = [bytes((7 * i + at % 251) % 256 for at in range(ROOM)) for i in range(40)]
    for chain in chains:
        guest.post(OUTPUT, chain)
    data, got = b"".join(chains), b""
    deadline = time.monotonic() + 10
    while len(got) < len(data):
        assert time.monotonic() < deadline, f"{len(got)} of {len(data)} bytes"
        guest.go_on(guest.stop())
        with contextlib.suppress(BlockingIOError):
            got += host.recv(5000)
    assert got == data
    with pytest.raises(BlockingIOError):
        host.recv(1)
