"""Both sockets of a machine, and its events."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import MachineConfig
from acrn_dm.management.events import Events, VmEventKind
from acrn_dm.management.service import Management
from tests.management.conftest import FakeMachine, Peer

REGISTER = b'{"command":"register_vm_event_client"}'


def test_nothing_is_opened_unless_asked_for(loop: IoLoop, machine: FakeMachine, tmp_path: Path) -> None:
    Management(loop, MachineConfig(), machine.controls()).close()
    assert list(tmp_path.iterdir()) == []


def test_power_off_and_triple_fault_are_told_once_a_second(
    loop: IoLoop, machine: FakeMachine, tmp_path: Path, connect: Callable[[Path], Peer]
) -> None:
    management = Management(loop, MachineConfig(command_monitor=tmp_path / "m"), machine.controls())
    peer = connect(tmp_path / "m")
    peer.send(REGISTER)
    management.triple_fault()
    management.triple_fault()
    management.powered_off()
    management.close()
    assert peer.receive() == b'{"ack":0}\n{"vm_event":2}\n{"vm_event":1}\n'
    assert peer.receive() == b""


def test_events_without_a_monitor_go_nowhere(loop: IoLoop, machine: FakeMachine) -> None:
    management = Management(loop, MachineConfig(), machine.controls())
    management.powered_off()
    management.close()


def test_command_monitor_that_can_not_be_opened_is_the_users_error(
    loop: IoLoop, machine: FakeMachine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        Management(loop, MachineConfig(command_monitor=tmp_path / "file"), machine.controls())


def test_missing_managers_directory_is_only_logged(
    loop: IoLoop, machine: FakeMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.INFO):
        Management(loop, MachineConfig(manager_directory=tmp_path / "file" / "x"), machine.controls()).close()
    assert "no manager's socket" in caplog.text


def test_event_is_throttled_by_kind_and_time(loop: IoLoop) -> None:
    sent: list[dict[str, int]] = []
    now = [0.0]
    events = Events(loop, sent.append, clock=lambda: now[0])
    for time, kind in ((0.0, 1), (0.5, 1), (0.6, 2), (1.0, 1), (1.9, 1), (2.0, 1)):
        now[0] = time
        events.happened(VmEventKind(kind))
    assert [event["vm_event"] for event in sent] == [1, 2, 1, 1]


def test_clock_set_in_several_steps_is_one_event(loop: IoLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acrn_dm.management.events.WINDOW_S", 0.05)
    sent: list[dict[str, int]] = []
    events = Events(loop, sent.append)
    events.clock_set(1000, 1060)
    events.clock_set(1060, 4660)
    while not sent:
        loop.step(1.0)
    assert sent == [{"vm_event": 0, "delta_time": 3660, "last_time": 1000}]


def test_clock_set_to_and_fro_is_no_event(loop: IoLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acrn_dm.management.events.WINDOW_S", 0.02)
    sent: list[dict[str, int]] = []
    events = Events(loop, sent.append)
    events.clock_set(1000, 1060)
    events.clock_set(1060, 1000)
    done: list[int] = []
    loop.call_later(0.1, lambda: done.append(1))
    while not done:
        loop.step(1.0)
    assert sent == []
