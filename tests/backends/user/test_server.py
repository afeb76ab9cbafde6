"""Processes that connect to us (``server=on``), and processes that come late (``wait=``), for every kind of device."""

import math
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import EVENT_IDX, VERSION_1
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.machines import impatient
from tests.backends.user.peers.caller import Caller
from tests.backends.user.peers.peer import BLK_FEATURES, Connection, Peer, Received
from tests.backends.user.user_rig import eventually, open_descriptors
from tests.patience import comes_true

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")

LEAVING = 20  # connections that end without a word
PLAIN = VERSION_1 | EVENT_IDX | PROTOCOL_FEATURES
KINDS = {
    "virtio-blk": ("vhost-user={}", BLK_FEATURES, 60),
    "virtio-net": ("vhost-user={}", PLAIN, 12),
    "virtio-console": ("vhost-user={}", PLAIN, 12),
    "virtio-fs": ("socket={},tag=t", PLAIN, 40),
    "vhost-user-device": ("id=4,queues=1,socket={}", PLAIN, 0),
}


def options(kind: str, path: Path) -> str:
    return KINDS[kind][0].format(path)


def caller(kind: str, path: Path) -> Caller:
    _, features, config = KINDS[kind]
    return Caller(path, features=features, config=bytes(config))


def rings_run(machine: SimMachine, peer: Peer) -> None:
    """The driver's rings are given to *peer*, and none of them failed."""
    machine.driver(3).start()
    eventually(machine, lambda: Request.SET_VRING_KICK in peer.codes())
    assert machine.failures == []


@pytest.mark.parametrize("kind", KINDS)
def test_process_connects_to_us_whatever_the_device_is(kind: str, socket_path: Path) -> None:
    with caller(kind, socket_path) as peer, SimMachine() as machine:
        machine.add(kind, f"{options(kind, socket_path)},server=on", slot=3)
        rings_run(machine, peer)
    assert not socket_path.exists()


class Late:
    """A peer that another thread makes when somebody waits for it."""

    def __init__(self, log: pytest.LogCaptureFixture, make: Callable[[], Peer]) -> None:
        self.peer: Peer
        self._log, self._make = log, make
        self._thread = threading.Thread(target=self._come)

    def _come(self) -> None:
        assert comes_true(lambda: "waits for the vhost-user back-end" in self._log.text)
        self.peer = self._make()

    def __enter__(self) -> "Late":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self.peer.__exit__()


@pytest.mark.parametrize("role", ["server=on", "wait=on"])
@pytest.mark.parametrize("kind", KINDS)
def test_process_that_comes_late_is_waited_for(
    kind: str, role: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, features, config = KINDS[kind]
    peer = Caller if role == "server=on" else Peer
    with SimMachine() as machine:
        function = machine.add(kind, f"{options(kind, socket_path)},{role}", slot=3)
        assert function.check() == []
        with Late(caplog, lambda: peer(socket_path, features=features, config=bytes(config))) as late:
            machine.driver(3).start()
            eventually(machine, lambda: Request.SET_VRING_KICK in late.peer.codes())
            assert machine.failures == []


def test_next_process_that_connects_goes_on(socket_path: Path) -> None:
    with caller("virtio-blk", socket_path) as peer, SimMachine() as machine:
        machine.add("virtio-blk", f"vhost-user={socket_path},server=on", slot=3)
        rings_run(machine, peer)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert Request.SET_INFLIGHT_FD in peer.codes()
        assert machine.failures == []


def test_nobody_else_of_the_host_may_connect(socket_path: Path) -> None:
    with caller("virtio-blk", socket_path), SimMachine() as machine:
        machine.add("virtio-blk", f"vhost-user={socket_path},server=on", slot=3)
        machine.driver(3)
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600


def test_who_connects_and_leaves_is_not_taken_for_the_process(socket_path: Path) -> None:
    with caller("virtio-blk", socket_path) as peer, SimMachine() as machine:
        peer.silent = True
        machine.add("virtio-blk", f"vhost-user={socket_path},server=on", slot=3)

        def leave() -> None:
            before = open_descriptors()
            for _ in range(LEAVING):
                called = socket.socket(socket.AF_UNIX)
                assert comes_true(lambda called=called: not called.connect_ex(str(socket_path)))  # type: ignore[misc]
                called.close()
            left.append(comes_true(lambda: open_descriptors() < before + LEAVING // 2))
            peer.silent = False

        left: list[bool] = []
        thread = threading.Thread(target=leave)
        thread.start()
        rings_run(machine, peer)
        thread.join()
        assert left == [True], "connections that are over have kept their descriptors"


def test_process_that_says_nothing_costs_the_start_no_more_than_its_time(socket_path: Path) -> None:
    def nothing(connection: Connection, request: Received) -> None:
        """It reads, and is silent."""

    with Caller(socket_path, {Request.GET_FEATURES: nothing}), impatient():
        machine = SimMachine()
        machine.add("virtio-blk", f"vhost-user={socket_path},server=on", slot=3)
        with pytest.raises(HostError, match="GET_FEATURES was not answered within"):
            machine.driver(3)
        machine.close()
    assert not socket_path.exists()


@pytest.mark.parametrize(
    ("role", "words"),
    [("server=on", "no process has connected"), ("wait=on", "No such file or directory")],
)
def test_wait_ends_when_its_seconds_are_over(
    role: str, words: str, socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = SimMachine()
    function = machine.add("virtio-blk", f"vhost-user={socket_path},{role.replace('wait=on', 'wait=1')}", slot=3)
    assert isinstance(function, VirtioPci)
    door = function.data_plane.backend.door  # type: ignore[attr-defined]
    assert door.patience == (1.0 if role == "wait=on" else float("inf"))
    in_time = door if role == "wait=on" else type(door)(path=door.path, name=door.name, patience=0.05)
    monkeypatch.setattr(function.data_plane.backend, "door", in_time)
    with pytest.raises(HostError, match=words):
        machine.driver(3)
    machine.close()
    assert "virtio-blk-3:0 waits for the vhost-user back-end " in caplog.text
    assert caplog.text.count("waits for") == 1


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("virtio-blk", "vhost-user=/s,server=yes", "expected on or off"),
        ("virtio-blk", "vhost-user=/s,wait=0", "expected on, off or 1 to 86400 seconds"),
        ("virtio-blk", "vhost-user=/s,wait=86401", "expected on, off or 1 to 86400 seconds"),
        ("virtio-blk", "vhost-user=/s,wait=1e3", "expected on, off or 1 to 86400 seconds"),
        ("virtio-blk", "vhost-user=/s,server=on,server=on", "'server' is given twice"),
        ("virtio-blk", "vhost-user=/s,server=on,wait=off", "with server=on it has to be waited for"),
        ("virtio-blk", "/a.img,server=on", "server= is for devices at the socket of a vhost-user or vfio-user process"),
        ("virtio-net", "tap=t0,wait=5", "wait= is for devices at the socket of a vhost-user or vfio-user process"),
        ("hostbridge", "wait=5", "wait= is for devices at the socket of a vhost-user or vfio-user process"),
    ],
)
def test_what_can_not_be_is_refused_in_words(kind: str, text: str, words: str) -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match=words):
        machine.add(kind, text, slot=3)


@pytest.mark.parametrize(
    ("table", "patience"),
    [
        ({"wait": 1}, 1.0),
        ({"wait": True}, math.inf),
        ({"wait": False}, 0.0),
        ({"wait": "86400"}, 86400.0),
        ({"server": True}, math.inf),
        ({"server": True, "wait": 7}, 7.0),
    ],
)
def test_keys_of_a_configuration_file_mean_the_same(table: dict[str, object], patience: float) -> None:
    machine = SimMachine()
    function = machine.add("virtio-fs", {"socket": "/s", "tag": "t", **table}, slot=3)
    assert isinstance(function, VirtioPci)
    assert function.data_plane.backend.door.patience == patience  # type: ignore[attr-defined]
    assert function.placement.text == "vhost-user /s" + ", server" * ("server" in table)
    machine.close()


@pytest.mark.parametrize("off", ["server=off", "wait=off", "server=off,wait=off"])
def test_off_is_as_if_nothing_were_said(off: str, socket_path: Path) -> None:
    machine = SimMachine()
    machine.add("virtio-blk", f"vhost-user={socket_path},{off}", slot=3)
    with pytest.raises(HostError, match="No such file or directory"):
        machine.driver(3)
    machine.close()


def test_socket_of_somebody_who_listens_is_not_taken(socket_path: Path) -> None:
    with Peer(socket_path) as peer:
        machine = SimMachine()
        function = machine.add("virtio-blk", f"vhost-user={socket_path},server=on", slot=3)
        (line,) = function.check()
        assert line.endswith(f"socket {socket_path}: somebody listens there already")
        with pytest.raises(AcrnDmError, match="somebody listens there already"):
            machine.driver(3)
        machine.close()
        assert peer.seen == []


def test_file_in_the_way_is_no_socket_that_is_late(socket_path: Path) -> None:
    socket_path.touch()
    machine = SimMachine()
    (line,) = machine.add("virtio-blk", f"vhost-user={socket_path},wait=on", slot=3).check()
    assert line.endswith("is no socket")
    machine.close()
    assert os.path.exists(socket_path)
