"""A console's queues over vhost-user: as many as its back-end's ports need, not as many as there can be."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user.terms import CONSOLE_MULTIPORT as MULTIPORT
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.errors import HostError
from acrn_dm.devices import virtio_console
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import NEEDS_RESET, PACKED, VERSION_1
from tests.backends.user.peers.peer import Connection, Peer, Received
from tests.backends.user.peers.shadow import Shadow
from tests.backends.user.user_rig import eventually
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


class ConsolePeer(Peer):
    """A back-end that serves *queues* queues and has *ports* ports, with MULTIPORT if *features* say so."""

    def __init__(self, path: Path, *, queues: int, ports: int = 1, features: int = 0) -> None:
        self.queues, self.ports = queues, ports
        answers = {Request.GET_QUEUE_NUM: self._queue_num, Request.GET_CONFIG: self._config}
        super().__init__(path, answers, features=VERSION_1 | PROTOCOL_FEATURES | features)

    def _queue_num(self, connection: Connection, request: Received) -> None:
        connection.send(request.code, struct.pack("<Q", self.queues))

    def _config(self, connection: Connection, request: Received) -> None:
        connection.send(request.code, request.payload[:12] + struct.pack("<HHII", 80, 25, self.ports, 0))

    def rings(self) -> list[int]:
        """Those that were started."""
        return [request.payload[0] for request in self.seen if request.code == Request.SET_VRING_KICK]


@contextmanager
def console(peer: Peer, options: str = "") -> Iterator[SimMachine]:
    """A machine with a console in slot 3."""
    with peer, SimMachine(plugins=[virtio_console, vhost_user]) as machine:
        machine.add("virtio-console", f"vhost-user={peer.path}{options}", slot=3)
        yield machine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("queues", "ports", "features"),
    [(2, 1, 0), (2, 0, 0), (4, 1, MULTIPORT), (6, 2, MULTIPORT), (34, 16, MULTIPORT), (64, 31, MULTIPORT)],
)
@pytest.mark.parametrize("enables", ["all", "its own"])
def test_backend_serves_the_queues_that_its_ports_need(
    path: Path, queues: int, ports: int, features: int, enables: str
) -> None:
    """Drivers may enable all they see; those of ports that do not exist are nobody's."""
    peer = ConsolePeer(path, queues=queues, ports=ports, features=features)
    used = min(queues, 34)
    with console(peer) as machine:
        driver = machine.driver(3)
        driver.start(queues=None if enables == "all" else range(used))
        assert peer.rings() == list(range(used))
        for index in driver.queues:
            driver.queue(index).send([b"x"])
            driver.queue(index).kick(force=True)
        machine.settle()
        assert machine.failures == []
        driver.reset()
        driver.start()
        assert machine.failures == []


@pytest.mark.parametrize(
    ("queues", "ports", "features", "needed"), [(1, 1, 0, 2), (2, 1, MULTIPORT, 4), (32, 16, MULTIPORT, 34)]
)
def test_backend_that_serves_fewer_queues_than_its_ports_need_is_refused(
    path: Path, queues: int, ports: int, features: int, needed: int
) -> None:
    with ConsolePeer(path, queues=queues, ports=ports, features=features):
        machine = SimMachine(plugins=[virtio_console, vhost_user])
        machine.add("virtio-console", f"vhost-user={path}", slot=3)
        with pytest.raises(HostError, match=f"it serves {queues} queues?, the device has {needed}"):
            machine.driver(3)
        machine.close()


@pytest.mark.parametrize(("ports", "shown"), [(0, 0), (1, 1), (16, 16), (17, 16), (0xFFFF, 16)])
def test_driver_reads_of_no_more_ports_than_the_device_has_queues_for(path: Path, ports: int, shown: int) -> None:
    with console(ConsolePeer(path, queues=64, ports=ports, features=MULTIPORT)) as machine:
        assert machine.driver(3).read_config(0, 12) == struct.pack("<HHII", 80, 25, shown, 0)


def test_driver_finds_no_more_queues_than_it_is_given_ports(path: Path) -> None:
    peer = ConsolePeer(path, queues=64, ports=31, features=MULTIPORT)
    with console(peer, ",max_ports=2") as machine:
        driver = machine.driver(3)
        assert driver.read_config(0, 12) == struct.pack("<HHII", 80, 25, 2, 0)
        driver.start()
        assert peer.rings() == list(range(6))


def test_driver_without_multiport_has_two_queues_whatever_the_backend_serves(path: Path) -> None:
    peer = ConsolePeer(path, queues=34, ports=16, features=MULTIPORT)
    with console(peer) as machine:
        machine.driver(3).start(VERSION_1)
        assert peer.rings() == [0, 1]


def test_next_backend_that_serves_fewer_queues_than_the_driver_uses_fails_the_device(path: Path) -> None:
    peer = ConsolePeer(path, queues=6, ports=2, features=MULTIPORT)
    with console(peer) as machine:
        driver = machine.driver(3)
        driver.start()
        peer.queues, peer.ports = 4, 1
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: bool(machine.failures))
        assert "it serves 4 queues, the driver uses 6" in str(machine.failures[0][1])
        assert driver.status & NEEDS_RESET
        assert peer.rings() == []
        driver.start()
        assert peer.rings() == [0, 1, 2, 3]


@pytest.mark.parametrize("goes_on", [False, True], ids=["reset", "pause"])
def test_buffers_for_what_arrives_hold_up_neither_reset_nor_pause(
    path: Path, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of packed rings nobody but a relay knows where they are, and nobody ever finishes what waits for input."""
    monkeypatch.setattr(user, "TIME_LIMIT_S", 0.5)
    peer = ConsolePeer(path, queues=2, features=PACKED)
    with console(peer) as machine:
        driver = machine.driver(3)
        driver.start(driver.registers.offered(), queues=range(2))
        assert driver.features & PACKED
        for _ in range(4):
            driver.queue(0).send([], [16])
        driver.queue(0).kick()
        machine.settle()
        assert len(Shadow.of(peer).heads()) == 4
        if goes_on:
            pause(machine.bus.functions[0])
            resume(machine.bus.functions[0])
            machine.settle()
            assert len(Shadow.of(peer).heads()) == 4
        else:
            driver.reset()
            driver.start(driver.registers.offered(), queues=range(2))
        assert peer.connections == 1
        assert machine.failures == []
