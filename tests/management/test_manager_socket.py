"""The socket that acrnctl and acrnd talk to, with messages made byte by byte."""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.management.controls import PowerState
from acrn_dm.management.manager_socket import ManagerSocket
from tests.management.conftest import FakeMachine, Peer

MAGIC = int.from_bytes(b"vmm msg", "little")  # the header's comment says "mngr msg"; the number is this
STOP, SUSPEND, RESUME, QUERY, BLKRESCAN = 3, 4, 5, 6, 7

Connect = Callable[[Path], Peer]


def message(number: int, data: bytes = b"", *, magic: int = MAGIC, timestamp: int = 77) -> bytes:
    return struct.pack("<QIIQ", magic, number, 0, timestamp) + data.ljust(256, b"\0")


def results(answers: bytes) -> list[tuple[int, int]]:
    """(message id, result) of each answer; everything else is as it has to be."""
    assert len(answers) % 280 == 0
    found = []
    for at in range(0, len(answers), 280):
        magic, number, timestamp, result = struct.unpack_from("<QI4xQi", answers, at)
        assert (magic, timestamp) == (MAGIC, 77)
        assert not any(answers[at + 28 : at + 280])
        found.append((number, result))
    return found


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not the test's own: a socket's path has 107 bytes, and the name of a test may take 30 of them."""
    return tmp_path_factory.mktemp("m")


@pytest.fixture
def server(loop: IoLoop, folder: Path, machine: FakeMachine) -> Iterator[ManagerSocket]:
    made = ManagerSocket(loop, folder / "acrn" / "mngr", "vm1", machine.controls())
    yield made
    made.close()


@pytest.fixture
def peer(server: ManagerSocket, connect: Connect) -> Peer:
    return connect(server.path)


def test_tools_find_the_socket_by_name_and_process(server: ManagerSocket, folder: Path) -> None:
    assert server.path == folder / "acrn" / "mngr" / f"vm1.monitor.{os.getpid()}.socket"
    assert server.path.is_socket()
    server.close()
    assert not server.path.exists()


@pytest.mark.parametrize("state", PowerState)
def test_query_tells_the_state(peer: Peer, machine: FakeMachine, state: PowerState) -> None:
    machine.power = state
    peer.send(message(QUERY))
    assert results(peer.receive()) == [(QUERY, int(state))]


@pytest.mark.parametrize(("force", "done"), [(0, ("button",)), (1, ("off", "by the manager"))])
def test_stop_presses_the_button_or_forces(
    peer: Peer, machine: FakeMachine, force: int, done: tuple[object, ...]
) -> None:
    peer.send(message(STOP, struct.pack("<iI", force, 30)))
    assert results(peer.receive()) == [(STOP, 0)]
    assert machine.done == [done]


def test_resume_wakes_a_guest_that_sleeps(loop: IoLoop, folder: Path, connect: Connect) -> None:
    machine = FakeMachine(asleep=True)
    server = ManagerSocket(loop, folder, "vm1", machine.controls())
    peer = connect(server.path)
    peer.send(message(RESUME) + message(RESUME))
    assert results(peer.receive()) == [(RESUME, 0), (RESUME, -1)]
    server.close()


@pytest.mark.parametrize("number", [0, 1, SUSPEND, RESUME, 8, 0xFFFF_FFFF])
def test_what_can_not_be_done_fails(peer: Peer, machine: FakeMachine, number: int) -> None:
    peer.send(message(number))
    (answer,) = struct.unpack_from("<i", peer.receive(), 24)
    assert answer == -1
    assert machine.done == []


def test_rescan_inserts_a_medium(peer: Peer, machine: FakeMachine) -> None:
    peer.send(message(BLKRESCAN, b"4,/disk.img\0rubbish behind it"))
    assert results(peer.receive()) == [(BLKRESCAN, 0)]
    assert machine.done == [("insert", "0:4.0", "/disk.img")]


@pytest.mark.parametrize("text", [b"", b"4", b"4,\xff\xfe", b"9" * 256, b"4," + b"x" * 254])
def test_malformed_rescan_fails(peer: Peer, machine: FakeMachine, text: bytes) -> None:
    peer.send(message(BLKRESCAN, text))
    assert results(peer.receive()) == [(BLKRESCAN, -1)]
    assert machine.done == []


def test_rescan_that_the_machine_refuses_fails(peer: Peer, machine: FakeMachine) -> None:
    machine.refuses = True
    peer.send(message(BLKRESCAN, b"4,/disk.img"))
    assert results(peer.receive()) == [(BLKRESCAN, -1)]


def test_messages_cut_and_joined_anywhere_are_all_answered(peer: Peer) -> None:
    stream = message(QUERY) * 3 + message(STOP, struct.pack("<iI", 0, 0))
    for at in range(0, len(stream), 99):
        peer.send(stream[at : at + 99])
    assert results(peer.receive()) == [(QUERY, 0)] * 3 + [(STOP, 0)]


def test_wrong_magic_is_hung_up_on(peer: Peer, machine: FakeMachine) -> None:
    peer.send(message(STOP, struct.pack("<iI", 1, 0), magic=MAGIC ^ 1) + message(STOP, struct.pack("<iI", 1, 0)))
    assert peer.receive() == b""
    assert machine.done == []


def test_half_a_message_is_waited_for(peer: Peer) -> None:
    peer.send(message(QUERY)[:279])
    assert peer.silent


def test_directory_that_can_not_be_made_is_a_host_error(loop: IoLoop, folder: Path, machine: FakeMachine) -> None:
    (folder / "file").write_text("")
    with pytest.raises(HostError, match="making"):
        ManagerSocket(loop, folder / "file" / "mngr", "vm1", machine.controls())


def test_directory_that_is_made_is_private_whatever_the_umask(loop: IoLoop, folder: Path, machine: FakeMachine) -> None:
    before = os.umask(0)
    try:
        ManagerSocket(loop, folder / "a" / "mngr", "vm1", machine.controls()).close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((folder / p).stat().st_mode) for p in ("a", "a/mngr")] == [0o700, 0o700]
