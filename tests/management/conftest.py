"""A control plane that writes down what it is told, and clients of its sockets."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.types import Bdf
from acrn_dm.management.controls import Controls, PowerState

PATIENCE_S = 5.0


@attrs.define(eq=False)
class FakeMachine:
    """What the managers did."""

    done: list[tuple[object, ...]] = attrs.field(factory=list)
    power: PowerState = PowerState.RUNNING
    refuses: bool = False
    asleep: bool = False

    def controls(self) -> Controls:
        return Controls(
            state=lambda: self.power,
            press_power_button=lambda: self.done.append(("button",)),
            power_off=lambda who: self.done.append(("off", who)),
            insert_medium=self._insert,
            set_limits=lambda bdf, text: self.done.append(("limits", str(bdf), text)),
            set_link=lambda bdf, up: self.done.append(("link", str(bdf), up)),
            command_driver=lambda bdf, text: self.done.append(("driver", str(bdf), text)),
            resume=self._wake,
        )

    def _insert(self, bdf: Bdf, text: str) -> None:
        self.done.append(("insert", str(bdf), text))
        if self.refuses:
            raise ConfigError("has a disk already")

    def _wake(self) -> bool:
        was, self.asleep = self.asleep, False
        return was


@attrs.define(eq=False)
class Peer:
    """A client; steps the server's loop while it waits."""

    loop: IoLoop
    sock: socket.socket

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.settle()

    def settle(self) -> None:
        while self.loop.step(0.02):
            pass

    def receive(self) -> bytes:
        """What has come; empty when the server hung up."""
        self.settle()
        self.sock.settimeout(PATIENCE_S)
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    @property
    def silent(self) -> bool:
        """Nothing has come."""
        self.settle()
        self.sock.setblocking(False)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    made = IoLoop("main")
    yield made
    made.close()


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def connect(loop: IoLoop) -> Iterator[Callable[[Path], Peer]]:
    made: list[socket.socket] = []

    def to(path: Path) -> Peer:
        sock = socket.socket(socket.AF_UNIX)
        made.append(sock)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        peer = Peer(loop, sock)
        peer.settle()
        return peer

    yield to
    for sock in made:
        sock.close()
