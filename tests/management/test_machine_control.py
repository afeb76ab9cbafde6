"""A machine on the simulated hypervisor, managed through its sockets."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from tests.boot.samples import make_bzimage
from tests.management.test_manager_socket import BLKRESCAN, QUERY, STOP, message, results

PM1_CONTROL, S5 = 0x404, 5 << 10 | 1 << 13
PATIENCE_S = 10.0


@attrs.define(eq=False)
class Managed:
    """The machine runs on a thread of its own; the test is its guest and its managers."""

    machine: Machine
    folder: Path
    reasons: list[StopReason] = attrs.field(factory=list)
    thread: threading.Thread = attrs.field(init=False)
    sockets: list[socket.socket] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=lambda: self.reasons.append(self.machine.run()), daemon=True)
        self.thread.start()

    def connect(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        self.sockets.append(sock)
        return sock

    def monitor(self) -> socket.socket:
        return self.connect(self.folder / "monitor")

    def manager(self) -> socket.socket:
        (path,) = (self.folder / "mngr").iterdir()
        return self.connect(path)

    def ended(self) -> StopReason:
        self.thread.join(PATIENCE_S)
        (reason,) = self.reasons
        return reason


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    (tmp_path / "kernel").write_bytes(make_bzimage())
    (tmp_path / "disk").write_bytes(bytes(8192))
    config = MachineConfig(
        name="managed",
        hypervisor="sim",
        memory_bytes=128 << 20,
        kernel=tmp_path / "kernel",
        devices=(
            DeviceSpec(bdf=Bdf(slot=0), kind="hostbridge"),
            DeviceSpec(bdf=Bdf(slot=3), kind="virtio-blk", text="nodisk"),
        ),
        command_monitor=tmp_path / "monitor",
        manager_directory=tmp_path / "mngr",
        shutdown_timeout_s=0.2,
    )
    machine = build(config, make_plugin_manager(entry_points=False))
    machine.realize()
    running = Managed(machine, tmp_path)
    yield running
    if not running.reasons:
        machine.power.request(StopReason.FORCED)
        running.thread.join(PATIENCE_S)
    for sock in running.sockets:
        sock.close()
    machine.close()
    assert not (tmp_path / "monitor").exists()
    assert list((tmp_path / "mngr").iterdir()) == []


def test_destroy_wakes_the_main_loop_and_ends_the_machine(managed: Managed) -> None:
    monitor = managed.monitor()
    monitor.sendall(b'{"command":"destroy"}')
    assert monitor.recv(100) == b'{"ack":0}\n'
    assert managed.ended() is StopReason.POWEROFF
    assert managed.machine.detail == "by the command monitor"


def test_forced_stop_ends_the_machine(managed: Managed) -> None:
    manager = managed.manager()
    manager.sendall(message(STOP, struct.pack("<iI", 1, 0)))
    assert results(manager.recv(280)) == [(STOP, 0)]
    assert managed.ended() is StopReason.POWEROFF


def test_stop_presses_the_button_once_and_the_time_out_forces(managed: Managed) -> None:
    manager = managed.manager()
    manager.sendall(message(STOP) + message(STOP) + message(QUERY))
    assert results(manager.makefile("rb").read(840)) == [(STOP, 0), (STOP, 0), (QUERY, 0)]
    assert managed.ended() is StopReason.FORCED
    assert managed.machine.detail == "the guest did not power off in time"


def test_guests_own_power_off_is_an_event(managed: Managed) -> None:
    monitor = managed.monitor()
    monitor.sendall(b'{"command":"register_vm_event_client"}')
    assert monitor.recv(100) == b'{"ack":0}\n'
    managed.machine.dispatch.pio.write(PM1_CONTROL, 2, S5)
    assert monitor.recv(100) == b'{"vm_event":1}\n'
    assert managed.ended() is StopReason.POWEROFF


def test_both_sockets_insert_a_medium_once(managed: Managed, tmp_path: Path) -> None:
    manager, monitor = managed.manager(), managed.monitor()
    manager.sendall(message(BLKRESCAN, f"3,{tmp_path}/disk".encode()))
    assert results(manager.recv(280)) == [(BLKRESCAN, 0)]
    monitor.sendall(b'{"command":"blkrescan","arguments":"3,%s/disk"}' % bytes(tmp_path))
    assert monitor.recv(100) == b'{"ack":-1}\n'


@pytest.mark.parametrize("place", ["0", "4", "1:3:0"])
def test_rescan_of_what_has_no_medium_fails(managed: Managed, tmp_path: Path, place: str) -> None:
    manager = managed.manager()
    manager.sendall(message(BLKRESCAN, f"{place},{tmp_path}/disk".encode()))
    assert results(manager.recv(280)) == [(BLKRESCAN, -1)]
