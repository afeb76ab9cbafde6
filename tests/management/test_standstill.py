"""The guest stands still while the host can't serve it: the state itself, and a whole machine on a full host disk."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.resources import HostFault
from acrn_dm.contract.types import Bdf
from acrn_dm.hypervisors.lifecycle import State
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from acrn_dm.management.events import Event, Events
from acrn_dm.management.standstill import Standstill
from acrn_dm.testing.driver import VirtioDriver
from acrn_dm.testing.guest_pci import GuestFunction
from acrn_dm.testing.heap import GuestHeap
from acrn_dm.testing.register_access import ModernRegisters
from tests.boot.samples import make_bzimage
from tests.devices.virtio_blk.blk_rig import OK, OUT, header
from tests.management.test_manager_socket import QUERY, RESUME, message, results

PATIENCE_S = 20.0
PAUSED, RESUMED = 256, 257


# The state itself


class Witness:
    """Writes down what it is told, and does *then* when it hears of a pause."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.told: list[str] = []
        self.then = then

    def paused(self, fault: HostFault) -> None:
        self.told.append(fault.device)
        self.then()

    def resumed(self) -> None:
        self.told.append("resumed")


def fault(device: str = "disk", resumed: Callable[[], object] = lambda: None) -> HostFault:
    return HostFault(device=device, operation="write", err=errno.ENOSPC, resumed=resumed)


def test_devices_try_again_when_the_guest_is_resumed(loop: IoLoop) -> None:
    tried: list[str] = []
    it = Standstill(loop)
    for name in ("a", "b"):
        it.ask(fault(name, lambda name=name: tried.append(name)))  # type: ignore[misc]
    witness = Witness(lambda: loop.call_soon(it.resume))
    assert it.hold(witness, lambda: False)
    assert tried == ["a", "b"]
    assert witness.told == ["a", "b", "resumed"]
    assert not it.wanted


def test_fault_that_comes_while_it_stands_is_told_once_too(loop: IoLoop) -> None:
    it = Standstill(loop)
    it.ask(fault("a"))
    later = iter([lambda: it.ask(fault("b")), lambda: loop.call_soon(it.resume)])

    def then() -> None:
        next(later)()

    witness = Witness(then)
    assert it.hold(witness, lambda: False)
    assert witness.told == ["a", "b", "resumed"]


def test_device_that_fails_again_at_once_keeps_it_standing(loop: IoLoop) -> None:
    it = Standstill(loop)
    it.ask(fault("first", lambda: it.ask(fault("again"))))
    witness = Witness(lambda: loop.call_soon(it.resume))
    assert it.hold(witness, lambda: False)
    assert witness.told == ["first", "again", "resumed"], "the vCPUs did not run in between"


def test_nothing_is_resumed_that_does_not_stand(loop: IoLoop) -> None:
    tried: list[int] = []
    it = Standstill(loop)
    assert not it.resume()
    it.ask(fault(resumed=lambda: tried.append(1)))
    assert not it.resume(), "asked for, but the vCPUs still run"
    assert tried == []


def test_reset_makes_void_what_was_asked_for(loop: IoLoop) -> None:
    it = Standstill(loop)
    it.ask(fault())
    it.clear()
    assert not it.wanted


def test_machine_that_stops_for_good_resumes_nothing(loop: IoLoop) -> None:
    tried: list[int] = []
    it = Standstill(loop)
    it.ask(fault(resumed=lambda: tried.append(1)))
    witness = Witness()
    assert not it.hold(witness, lambda: True)
    assert (tried, witness.told) == ([], ["disk", "resumed"])


def test_pauses_are_told_each_time_whatever_came_before(loop: IoLoop) -> None:
    sent: list[Event] = []
    events = Events(loop, sent.append, clock=lambda: 0.0)
    for _ in range(3):
        events.paused(fault())
        events.resumed()
    assert [event["vm_event"] for event in sent] == [PAUSED, RESUMED] * 3
    assert sent[0] == {
        "vm_event": PAUSED,
        "device": "disk",
        "operation": "write",
        "errno": "ENOSPC",
        "reason": os.strerror(errno.ENOSPC),
    }


# A whole machine


class Observer:
    """What plugins hear."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def acrn_dm_machine_started(self, machine: Machine) -> None:
        self.heard.append(f"started, {cast(SimVm, machine.vm).state.value}")

    @hookimpl
    def acrn_dm_machine_stopped(self, machine: Machine, reason: str) -> None:
        self.heard.append(f"stopped: {reason}, {cast(SimVm, machine.vm).state.value}")


@attrs.define(eq=False)
class Running:
    """A machine on a thread of its own; the test is its driver and its manager. Stands in for SimMachine, too."""

    machine: Machine
    folder: Path
    observer: Observer
    heap: GuestHeap = attrs.field(factory=lambda: GuestHeap(96 << 20, 112 << 20))
    reasons: list[StopReason] = attrs.field(factory=list)
    thread: threading.Thread = attrs.field(init=False)
    sockets: list[Any] = attrs.field(factory=list)  # and what is read from them by lines

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=lambda: self.reasons.append(self.machine.run()), daemon=True)
        self.thread.start()
        self.until(lambda: self.vm.state is State.RUNNING)

    @property
    def vm(self) -> SimVm:
        return cast(SimVm, self.machine.vm)

    @property
    def memory(self) -> Any:
        return self.machine.memory

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def driver(self) -> VirtioDriver:
        function = GuestFunction(self.vm, 3)
        driver = VirtioDriver(cast(Any, self), function, ModernRegisters(function), msix=True)
        driver.start()
        return driver

    def settle(self) -> None:
        """Nobody has to step its loops."""

    def take_interrupts(self) -> None:
        """Nobody counts them."""

    def connect(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        self.sockets.append(sock)
        return sock

    def monitor(self) -> "Monitor":
        sock = self.connect(self.folder / "monitor")
        self.sockets.append(lines := sock.makefile("rb"))
        return Monitor(sock, lines)

    def manager(self) -> socket.socket:
        (path,) = (self.folder / "mngr").iterdir()
        return self.connect(path)

    def ask_manager(self, number: int) -> int:
        sock = self.manager()
        sock.sendall(message(number))
        (answer,) = results(sock.recv(280))
        return answer[1]


class Monitor:
    """A client of the command monitor."""

    def __init__(self, sock: socket.socket, lines: Any) -> None:
        self._sock = sock
        self._lines = lines

    def command(self, name: str) -> None:
        self._sock.sendall(json.dumps({"command": name}).encode())

    def line(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self._lines.readline()))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB that something else fills, but for 64 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, and leave to mount a tmpfs")
    (mount / "other").write_bytes(bytes(960 << 10))
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=False)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Running] = []

    def run(image: Path, options: str = "", **config: Any) -> Running:
        (tmp_path / "kernel").write_bytes(make_bzimage())
        with image.open("wb") as file:
            file.truncate(8 << 20)
        observer = Observer()
        settings = {"command_monitor": tmp_path / "monitor", "manager_directory": tmp_path / "mngr"} | config
        machine = build(
            MachineConfig(
                name="full",
                hypervisor="sim",
                memory_bytes=128 << 20,
                kernel=tmp_path / "kernel",
                devices=(
                    DeviceSpec(bdf=Bdf(slot=0), kind="hostbridge"),
                    DeviceSpec(bdf=Bdf(slot=3), kind="virtio-blk", text=f"{image}{options}"),
                ),
                **settings,
            ),
            make_plugin_manager(entry_points=False, extra=[observer]),
        )
        machine.realize()
        made.append(Running(machine, tmp_path, observer))
        return made[-1]

    yield run
    for running in made:
        running.machine.power.request(StopReason.FORCED)
        running.thread.join(PATIENCE_S)
        for sock in running.sockets:
            sock.close()
        running.machine.close()


BLOCK = 16 << 10


def write_all(running: Running, driver: VirtioDriver) -> list[bytes]:
    """Thirty-two blocks at once, half a megabyte in all; what they are."""
    blocks = [bytes([n + 1]) * BLOCK for n in range(32)]
    for n, data in enumerate(blocks):
        driver.queue(0).send([header(OUT, n * BLOCK // 512), data], [1])
    with contextlib.suppress(RuntimeError):  # the device saw them before the kick, and the vCPU stands still on its way
        driver.queue(0).kick(force=True)
    return blocks


def go_on(running: Running, driver: VirtioDriver) -> None:
    """What a vCPU does that was paused at its kick."""
    running.until(lambda: running.vm.state is State.RUNNING)
    driver.queue(0).kick(force=True)


@pytest.mark.process
@pytest.mark.parametrize("options", [",writethru", ",writeback", ",werror=stop"])
def test_full_host_disk_pauses_the_guest_and_nothing_is_lost(small: Path, start: Start, options: str) -> None:
    running = start(small / "disk", options)
    driver, monitor = running.driver(), running.monitor()
    monitor.command("register_vm_event_client")
    assert monitor.line() == {"ack": 0}
    blocks = write_all(running, driver)
    event = monitor.line()
    assert (event["vm_event"], event["device"], event["operation"]) == (PAUSED, "virtio-blk-3:0", "write")
    assert event["errno"] == "ENOSPC"
    assert running.vm.state is State.PAUSED
    with pytest.raises(RuntimeError, match="paused"):
        driver.registers.read("device_status")
    assert running.ask_manager(QUERY) == 4, "paused, in the words of acrnctl"
    (small / "other").unlink()
    monitor.command("resume")
    assert monitor.line() == {"ack": 0}
    assert monitor.line() == {"vm_event": RESUMED}
    go_on(running, driver)
    done = driver.queue(0).completed()
    running.until(lambda: done.extend(driver.queue(0).completed()) or len(done) == len(blocks))
    assert {c.data[-1] for c in done} == {OK}
    assert (small / "disk").read_bytes()[: len(blocks) * BLOCK] == b"".join(blocks)
    assert running.observer.heard == ["started, not started", "stopped: paused, paused", "started, paused"]
    assert running.ask_manager(QUERY) == 0


@pytest.mark.process
def test_resume_by_the_manager_and_again_while_the_disk_is_still_full(small: Path, start: Start) -> None:
    running = start(small / "disk")
    driver, monitor = running.driver(), running.monitor()
    write_all(running, driver)
    running.until(lambda: running.machine.standstill.standing)
    monitor.command("register_vm_event_client")
    assert monitor.line() == {"ack": 0}
    assert monitor.line()["vm_event"] == PAUSED, "who comes later is told, too"
    assert running.ask_manager(RESUME) == 0
    while (event := monitor.line()["vm_event"]) == RESUMED:
        pass  # it may have run for a moment
    assert event == PAUSED
    (small / "other").unlink()
    assert running.ask_manager(RESUME) == 0
    done: list[Any] = []
    go_on(running, driver)
    running.until(lambda: done.extend(driver.queue(0).completed()) or len(done) == 32)
    assert {c.data[-1] for c in done} == {OK}


@pytest.mark.process
def test_guest_without_sockets_is_told_of_the_full_disk(small: Path, start: Start) -> None:
    running = start(small / "disk", command_monitor=None, manager_directory=None)
    driver = running.driver()
    write_all(running, driver)
    done: list[Any] = []
    running.until(lambda: done.extend(driver.queue(0).completed()) or len(done) == 32)
    assert {c.data[-1] for c in done} == {OK, 1}
    assert running.vm.state is State.RUNNING


@pytest.mark.process
def test_paused_guest_is_destroyed_by_command(small: Path, start: Start) -> None:
    running = start(small / "disk")
    monitor = running.monitor()
    write_all(running, running.driver())
    running.until(lambda: running.machine.standstill.standing)
    monitor.command("destroy")
    assert monitor.line() == {"ack": 0}
    running.thread.join(PATIENCE_S)
    assert running.reasons == [StopReason.POWEROFF]


@pytest.mark.process
def test_paused_guest_that_is_asked_to_power_off_is_forced_in_time(small: Path, start: Start) -> None:
    running = start(small / "disk", shutdown_timeout_s=0.2)
    write_all(running, running.driver())
    running.until(lambda: running.machine.standstill.standing)
    running.machine.press_power_button()
    running.thread.join(PATIENCE_S)
    assert running.reasons == [StopReason.FORCED]


def test_resume_of_a_guest_that_runs_fails(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path / "disk")
    monitor = running.monitor()
    monitor.command("resume")
    assert monitor.line() == {"ack": -1}
    assert running.ask_manager(RESUME) == -1


@pytest.mark.parametrize("name", ["hsm", "vhm"])
def test_hypervisor_that_resumes_nothing_pauses_nothing(name: str) -> None:
    assert not make_plugin_manager(entry_points=False).hypervisor_types()[name].resumes


def test_guest_of_such_a_hypervisor_is_told(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path / "disk")
    machine = running.machine
    assert machine.hypervisor.type is not None
    machine.hypervisor = attrs.evolve(machine.hypervisor, type=attrs.evolve(machine.hypervisor.type, resumes=False))
    assert not machine.standstill.pause_guest(fault())
