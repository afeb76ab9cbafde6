"""Clients accepted on a loop, also when no descriptor is free for them."""

import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets import acceptor
from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.devices.uart.backends import TcpBackend
from acrn_dm.devices.uart.uart16550 import Uart16550
from acrn_dm.devices.virtio_console.backend_socket import ServerBackend
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.server import Server
from acrn_dm.management.command_monitor import CommandMonitor
from tests.export.made import made
from tests.management.conftest import FakeMachine


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    made = IoLoop("main")
    yield made
    made.close()


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Every new one fails with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@attrs.define(eq=False)
class Listening:
    """Something that listens, and how to connect to it."""

    connect: Callable[[], socket.socket]
    close: Callable[[], object]


def unix(path: Path) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        return client

    return connect


def console(loop: IoLoop, folder: Path) -> Listening:
    backend = ServerBackend("port", folder / "s")
    backend.open()
    backend.attach(loop, lambda: None, lambda connected: None)
    return Listening(unix(folder / "s"), backend.close)


def export(loop: IoLoop, folder: Path) -> Listening:
    exported = ExportedDevice(made(f"virtio-console,file:port0={folder / 'out'}"), loop)
    listener = UnixListener(folder / "s")
    server = Server(exported, listener.socket, lambda: None)

    def close() -> None:
        server.close()
        listener.close()
        exported.close()

    return Listening(unix(folder / "s"), close)


def monitor(loop: IoLoop, folder: Path) -> Listening:
    return Listening(unix(folder / "s"), CommandMonitor(loop, folder / "s", FakeMachine().controls()).close)


def serial_port(loop: IoLoop, folder: Path) -> Listening:
    backend = TcpBackend(Uart16550(lambda asserted: None), loop, 0)
    return Listening(lambda: socket.create_connection(backend._server.getsockname()), backend.close)


ALL = {"console": console, "export": export, "monitor": monitor, "serial port": serial_port}


@pytest.mark.parametrize("kind", ALL)
def test_listener_without_a_free_descriptor_does_not_keep_the_loop_busy(
    kind: str, loop: IoLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = ALL[kind](loop, tmp_path)
    loop.run_until_idle()
    with listening.connect():
        with no_descriptor_free(), caplog.at_level(logging.ERROR):
            assert loop.run_until_idle(limit=20) <= 2
        assert "Too many open files" in caplog.text
    listening.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@attrs.define(eq=False)
class Rig:
    """An acceptor and whom it has accepted."""

    loop: IoLoop
    path: Path
    clients: list[socket.socket] = attrs.field(factory=list)
    listener: UnixListener = attrs.field(init=False)
    acceptor: Acceptor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.listener = UnixListener(self.path)
        self.acceptor = Acceptor(self.loop, self.listener.socket, "here", self.clients.append)

    def connect(self) -> socket.socket:
        return unix(self.path)()


@pytest.fixture
def rig(loop: IoLoop, path: Path) -> Iterator[Rig]:
    made = Rig(loop, path)
    yield made
    made.acceptor.close()
    made.listener.close()
    for client in made.clients:
        client.close()


def test_client_that_found_no_descriptor_is_served_when_there_is_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "RETRY_S", 0.01)
    with rig.connect():
        with no_descriptor_free():
            rig.loop.step(1.0)
        assert rig.clients == []
        while not rig.clients:
            assert rig.loop.step(5.0), "nobody tries again"


def test_client_is_not_waited_for_by_those_who_read_it(rig: Rig) -> None:
    with rig.connect():
        rig.loop.step(1.0)
        assert not rig.clients[0].getblocking()


def test_paused_acceptor_lets_clients_wait_until_it_is_resumed(rig: Rig) -> None:
    rig.acceptor.pause()
    with rig.connect():
        assert rig.loop.run_until_idle() == 0
        rig.acceptor.resume()
        rig.loop.run_until_idle()
        assert len(rig.clients) == 1


def test_end_of_a_shortage_does_not_resume_what_is_paused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "RETRY_S", 0.0)
    with rig.connect():
        with no_descriptor_free():
            rig.loop.step(1.0)
        rig.acceptor.pause()
        rig.loop.run_until_idle()
        assert rig.clients == []


def test_acceptor_that_is_closed_during_a_shortage_stays_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "RETRY_S", 0.0)
    with rig.connect():
        with no_descriptor_free():
            rig.loop.step(1.0)
        rig.acceptor.close()
        rig.loop.run_until_idle()
        assert rig.clients == []
