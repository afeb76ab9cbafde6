"""The command monitor's socket, and clients that try it."""

import array
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.management.command_monitor import MAX_CLIENTS, CommandMonitor
from tests.management.conftest import FakeMachine, Peer

OK, FAILED = b'{"ack":0}\n', b'{"ack":-1}\n'
DESTROY = b'{"command":"destroy"}'
REGISTER = b'{"command":"register_vm_event_client"}'

Connect = Callable[[Path], Peer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitor"


@pytest.fixture
def monitor(loop: IoLoop, path: Path, machine: FakeMachine) -> Iterator[CommandMonitor]:
    made = CommandMonitor(loop, path, machine.controls())
    yield made
    made.close()


@pytest.fixture
def peer(monitor: CommandMonitor, path: Path, connect: Connect) -> Peer:
    return connect(path)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_destroy_powers_off_at_once(peer: Peer, machine: FakeMachine) -> None:
    peer.send(DESTROY)
    assert peer.receive() == OK
    assert machine.done == [("off", "by the command monitor")]


def test_destroy_of_a_real_time_guest_is_refused(
    loop: IoLoop, path: Path, machine: FakeMachine, connect: Connect
) -> None:
    monitor = CommandMonitor(loop, path, machine.controls(), may_destroy=False)
    peer = connect(path)
    peer.send(DESTROY)
    assert peer.receive() == FAILED
    assert machine.done == []
    monitor.close()


def test_rescan_inserts_a_medium(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"blkrescan","arguments":"3,/img,ro"}')
    assert peer.receive() == OK
    assert machine.done == [("insert", "0:3.0", "/img,ro")]


@pytest.mark.parametrize("arguments", ["", "3", "3,", "x,/img", "-3,/img", "32,/img", "1:2:3:4,/img", "9999,/img"])
def test_malformed_rescan_fails_without_touching_the_machine(peer: Peer, machine: FakeMachine, arguments: str) -> None:
    peer.send(b'{"command":"blkrescan","arguments":"%s"}' % arguments.encode())
    assert peer.receive() == FAILED
    assert machine.done == []


def test_rescan_that_the_machine_refuses_fails(peer: Peer, machine: FakeMachine) -> None:
    machine.refuses = True
    peer.send(b'{"command":"blkrescan","arguments":"0:3:0,/img"}')
    assert peer.receive() == FAILED


def test_each_of_several_commands_in_one_message_is_answered(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"blkrescan","arguments":"3,/a"}\n{"command":"blkrescan"}\n' + DESTROY)
    assert peer.receive() == OK + FAILED + OK
    assert [what[0] for what in machine.done] == ["insert", "off"]


def test_unknown_command_is_answered_and_the_client_may_go_on(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"pause"}')
    assert peer.receive() == FAILED
    peer.send(DESTROY)
    assert peer.receive() == OK


@pytest.mark.parametrize("data", [b"hello\n", b"\xff\xfe", b'{"command":"' + b"a" * 5000, b"[" * 100])
def test_what_is_no_json_is_answered_and_hung_up_on(peer: Peer, machine: FakeMachine, data: bytes) -> None:
    peer.send(data)
    assert peer.receive() == FAILED
    assert peer.receive() == b""
    assert machine.done == []


def test_descriptors_that_come_with_a_command_are_not_received(peer: Peer) -> None:
    before = descriptors()
    with open("/dev/null") as file:
        rights = array.array("i", [file.fileno()] * 8)
        for _ in range(20):
            peer.sock.sendmsg([DESTROY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    peer.settle()
    assert descriptors() == before


def test_answer_carries_no_descriptor(peer: Peer) -> None:
    peer.send(DESTROY)
    data, ancillary, _, _ = peer.sock.recvmsg(100, 1000)
    assert (data, ancillary) == (OK, [])


def test_events_go_to_the_one_who_asked(monitor: CommandMonitor, path: Path, connect: Connect) -> None:
    first, second = connect(path), connect(path)
    first.send(REGISTER)
    assert first.receive() == OK
    second.send(REGISTER)
    assert second.receive() == FAILED
    monitor.send_event({"vm_event": 1})
    assert first.receive() == b'{"vm_event":1}\n'
    assert second.silent


def test_listener_that_left_makes_room_for_another(monitor: CommandMonitor, path: Path, connect: Connect) -> None:
    first, second = connect(path), connect(path)
    first.send(REGISTER)
    first.sock.close()
    second.settle()
    monitor.send_event({"vm_event": 1})
    second.send(REGISTER)
    assert second.receive() == OK


def test_listener_that_does_not_read_is_dropped(monitor: CommandMonitor, peer: Peer) -> None:
    peer.send(REGISTER)
    for _ in range(100_000):
        monitor.send_event({"vm_event": 0, "delta_time": 1, "last_time": 2})
        if monitor.listener is None:
            break
    assert monitor.listener is None


def test_idle_clients_lock_nobody_out_the_oldest_makes_way(
    monitor: CommandMonitor, path: Path, connect: Connect
) -> None:
    peers = [connect(path) for _ in range(MAX_CLIENTS + 1)]
    assert peers[0].receive() == b""
    for peer in peers[1:]:
        peer.send(DESTROY)
        assert peer.receive() == OK


def test_client_that_was_silent_longest_makes_way_not_the_one_that_came_first(
    monitor: CommandMonitor, path: Path, connect: Connect
) -> None:
    peers = [connect(path) for _ in range(MAX_CLIENTS)]
    peers[0].send(b'{"command":"pause"}')
    assert peers[0].receive() == FAILED
    connect(path)
    assert peers[1].receive() == b""
    assert peers[0].silent


def test_client_that_waits_for_events_does_not_make_way(monitor: CommandMonitor, path: Path, connect: Connect) -> None:
    listener = connect(path)
    listener.send(REGISTER)
    assert listener.receive() == OK
    for _ in range(3 * MAX_CLIENTS):
        connect(path)
    monitor.send_event({"vm_event": 1})
    assert listener.receive() == b'{"vm_event":1}\n'


def test_client_that_leaves_in_the_middle_leaves_nothing(peer: Peer, path: Path, connect: Connect) -> None:
    before = descriptors()
    for _ in range(10):
        other = connect(path)
        other.send(b'{"command":"des')
        other.sock.close()
        other.settle()
    peer.settle()
    assert descriptors() == before


# The path


def test_only_the_owner_may_connect(monitor: CommandMonitor, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_close_hangs_up_and_removes_the_path(monitor: CommandMonitor, peer: Peer, path: Path) -> None:
    monitor.close()
    monitor.close()
    assert peer.receive() == b""
    assert not path.exists()


def test_socket_left_behind_is_replaced(loop: IoLoop, path: Path, machine: FakeMachine) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    CommandMonitor(loop, path, machine.controls()).close()


def test_socket_in_use_and_other_files_are_left_alone(
    loop: IoLoop, monitor: CommandMonitor, path: Path, machine: FakeMachine, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="somebody listens"):
        CommandMonitor(loop, path, machine.controls())
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        CommandMonitor(loop, file, machine.controls())
    assert file.read_text() == "precious"


def test_path_that_was_replaced_is_not_removed(monitor: CommandMonitor, path: Path) -> None:
    path.unlink()
    path.write_text("another's")
    monitor.close()
    assert path.exists()


def test_impossible_paths_are_refused(loop: IoLoop, machine: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        CommandMonitor(loop, tmp_path / ("x" * 120), machine.controls())
    with pytest.raises(HostError, match="ENOENT"):
        CommandMonitor(loop, tmp_path / "absent" / "x", machine.controls())


@pytest.mark.parametrize(("word", "up"), [("on", True), ("off", False)])
def test_link_of_a_card_is_set_by_its_slot(peer: Peer, machine: FakeMachine, word: str, up: bool) -> None:
    peer.send(b'{"command":"set_link","arguments":"4:1,%s"}' % word.encode())
    assert peer.receive() == OK
    assert machine.done == [("link", "0:4.1", up)]


@pytest.mark.parametrize("arguments", ["", "4", "4,", "4,up", "x,on"])
def test_link_needs_a_slot_and_a_word(peer: Peer, machine: FakeMachine, arguments: str) -> None:
    peer.send(b'{"command":"set_link","arguments":"%s"}' % arguments.encode())
    assert peer.receive() == FAILED
    assert machine.done == []


def test_limits_of_a_disk_are_set_by_its_slot(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"blkthrottle","arguments":"3,iops=100,bps=1M"}')
    assert peer.receive() == OK
    assert machine.done == [("limits", "0:3.0", "iops=100,bps=1M")]


def test_limits_are_lifted_where_none_are_named(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"blkthrottle","arguments":"3"}')
    assert peer.receive() == OK
    assert machine.done == [("limits", "0:3.0", "")]


def test_driver_of_a_device_is_told_by_its_slot(peer: Peer, machine: FakeMachine) -> None:
    peer.send(b'{"command":"driver","arguments":"3,heal,all"}')
    assert peer.receive() == OK
    assert machine.done == [("driver", "0:3.0", "heal,all")]
