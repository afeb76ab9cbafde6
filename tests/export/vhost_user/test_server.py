"""Who gets the one place at the device, and when."""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends.wire.message import Request
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.export import waiting as module
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.server import Server
from acrn_dm.export.waiting import MAX_WAITING
from tests.export.made import made

HEADER = struct.Struct("<III")
QUESTION = HEADER.pack(Request.GET_QUEUE_NUM, 1, 0)
OWNER = HEADER.pack(Request.SET_OWNER, 1, 0)
PATIENCE_S = 10.0


@attrs.define(eq=False)
class Rig:
    """The server, and clients that step its loop while they wait."""

    loop: IoLoop
    path: Path
    made: list[socket.socket] = attrs.field(factory=list)

    def settle(self) -> None:
        while self.loop.step(0.0):
            pass

    def connect(self, says: bytes = b"") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(self.path))
        self.made.append(client)
        if says:
            client.send(says)
        self.settle()
        return client

    def answered(self, client: socket.socket) -> bool:
        """It is served; False: nothing has come yet. Raises EOFError when it was hung up on."""
        self.settle()
        try:
            data = client.recv(4096)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError
        return True

    def hung_up(self, client: socket.socket) -> bool:
        try:
            self.answered(client)
        except EOFError:
            return True
        return False

    def wait(self, done: Callable[[], bool]) -> None:
        while not done():
            assert self.loop.step(PATIENCE_S), "nothing happens any more"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    loop = IoLoop("main")
    exported = ExportedDevice(made(f"virtio-console,file:port0={tmp_path / 'out'}"), loop)
    listener = UnixListener(tmp_path / "s")
    server = Server(exported, listener.socket, lambda: None)
    rig = Rig(loop, tmp_path / "s")
    yield rig
    server.close()
    listener.close()
    exported.close()
    for client in rig.made:
        client.close()
    loop.close()


def test_loops_of_a_served_device_poll_where_its_options_say_so(tmp_path: Path) -> None:
    loop = IoLoop("main")
    device = made(f"virtio-console,file:port0={tmp_path / 'out'},poll_us=50")
    taken: list[IoLoop] = []
    device.realize = lambda resources: taken.append(resources.io_loop("io"))  # type: ignore[method-assign]
    exported = ExportedDevice(device, loop)
    exported.open()
    assert taken[0].poll.poll_limit == 50_000
    exported.close()
    loop.close()


def test_client_that_says_nothing_keeps_nobody_out(rig: Rig) -> None:
    rig.connect()
    assert rig.answered(rig.connect(QUESTION))


def test_silent_clients_in_any_number_keep_nobody_out(rig: Rig) -> None:
    silent = [rig.connect() for _ in range(3 * MAX_WAITING)]
    assert rig.answered(rig.connect(QUESTION))
    assert [rig.hung_up(client) for client in silent].count(False) <= MAX_WAITING


def test_client_that_speaks_late_is_served_then(rig: Rig) -> None:
    client = rig.connect()
    client.send(QUESTION)
    assert rig.answered(client)


def test_second_client_waits_for_the_first_to_leave(rig: Rig) -> None:
    first, second = rig.connect(OWNER + QUESTION), rig.connect(QUESTION)
    assert rig.answered(first)
    assert not rig.answered(second)
    first.close()
    assert rig.answered(second)


def test_silent_client_that_leaves_is_forgotten(rig: Rig) -> None:
    first = rig.connect(OWNER)
    for _ in range(3 * MAX_WAITING):
        rig.connect().close()
    rig.settle()
    assert not rig.hung_up(first)


def test_clients_that_wait_for_their_turn_are_not_hung_up_on_for_others(rig: Rig) -> None:
    first = rig.connect(OWNER)
    waiting = [rig.connect(QUESTION) for _ in range(MAX_WAITING)]
    rig.connect()  # in the kernel
    first.close()
    for client in waiting:
        assert rig.answered(client)
        client.close()


def test_client_that_is_no_owner_in_time_makes_way_for_one_that_speaks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a message, and then nothing."""
    monkeypatch.setattr(module, "OWNER_S", 0.05)
    first, second = rig.connect(QUESTION[:5]), rig.connect(QUESTION)
    rig.wait(lambda: rig.answered(second))
    assert rig.hung_up(first)


def test_client_that_talks_without_becoming_the_owner_makes_way_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNER_S", 0.05)
    first, second = rig.connect(QUESTION), rig.connect(QUESTION)

    def chatter() -> bool:
        with contextlib.suppress(OSError):
            first.send(QUESTION)
        return rig.answered(second)

    rig.wait(chatter)


def test_owner_stays_however_long_it_is_silent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNER_S", 0.0)
    first, second = rig.connect(OWNER), rig.connect(QUESTION)
    rig.loop.step(0.05)
    assert not rig.answered(second)
    assert not rig.hung_up(first)


def test_client_that_nobody_waits_behind_may_take_its_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNER_S", 0.0)
    first = rig.connect(QUESTION)
    assert rig.answered(first)
    rig.connect()
    rig.loop.step(0.05)
    first.send(QUESTION)
    assert rig.answered(first)
