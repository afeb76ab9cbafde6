"""machine.machine: a guest's sleep on the simulated hypervisor, and the wakes that end it, whenever they come."""

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from acrn_dm.boot.acpi.build import build_acpi
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from acrn_dm.machine.power import State
from tests.boot.samples import make_bzimage

PM1_CONTROL, RESET_CONTROL, FULL_RESET = 0x404, 0xCF9, 0x0E
S3, S5 = 3 << 10 | 1 << 13, 5 << 10 | 1 << 13  # SLP_TYP, SLP_EN
FACS_VECTOR, VECTOR = 12, 0x9_A010
WORD = 0x40_0000
PATIENCE_S = 10.0

Step = Callable[[Machine], object]


@attrs.define(eq=False)
class Guest:
    """The plugin that plays the guest: one program for each start of its processor, and what happens at each stop."""

    __name__ = "guest"
    programs: list[Step] = attrs.field(factory=list)
    stopped: Step = lambda machine: None
    heard: list[str] = attrs.field(factory=list)

    @hookimpl
    def acrn_dm_machine_started(self, machine: Any) -> None:
        self.heard.append("started")
        program = self.programs.pop(0)
        machine.main_loop.call_soon(lambda: program(machine))

    @hookimpl
    def acrn_dm_machine_stopped(self, machine: Any, reason: str) -> None:
        self.heard.append(reason)
        if reason == "suspend":
            self.stopped(machine)


@attrs.define(eq=False)
class Scene:
    guest: Guest
    machine: Machine

    def run(self, *programs: Step) -> StopReason:
        """The machine's whole life. A guest that sleeps on is forced off in the end."""
        self.guest.programs.extend(programs)
        late = threading.Timer(PATIENCE_S, lambda: self.machine.power.request(StopReason.FORCED, "it slept on"))
        late.start()
        try:
            return self.machine.run()
        finally:
            late.cancel()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "kernel").write_bytes(make_bzimage())
    guest = Guest()
    config = MachineConfig(hypervisor="sim", kernel=tmp_path / "kernel", memory_bytes=128 << 20)
    machine = build(config, make_plugin_manager(entry_points=False, extra=[guest]), threads=False)
    machine.realize()
    yield Scene(guest, machine)
    machine.close()


def write(machine: Machine, port: int, size: int, value: int) -> None:
    cast(SimVm, machine.vm).pio_write(port, size, value)


def suspend(machine: Machine) -> None:
    """Leave a word in memory and a waking vector, and ask for S3."""
    assert machine.memory is not None
    facs = next(gpa for gpa, data in build_acpi(machine.boot_source.plan().acpi) if data[:4] == b"FACS")
    machine.memory.write(facs + FACS_VECTOR, struct.pack("<I", VECTOR))
    machine.memory.write(WORD, b"kept")
    write(machine, PM1_CONTROL, 2, S3)


def power_off(machine: Machine) -> None:
    write(machine, PM1_CONTROL, 2, S5)


def then(*steps: Step) -> Step:
    return lambda machine: [step(machine) for step in steps]


WAKES: dict[str, Step] = {
    "alarm": lambda machine: machine.power.wake(),
    "button": lambda machine: machine.button.press(),
}


def goes_on(scene: Scene) -> None:
    """The guest went through S3 and ran on where its memory says, not anew."""
    assert scene.machine.memory is not None
    assert scene.guest.heard == ["started", "suspend", "started", "poweroff"]
    assert (scene.machine.power.reboots, scene.machine.memory.read(WORD, 4)) == (0, b"kept")


@pytest.mark.parametrize("wake", WAKES)
def test_wake_between_the_guests_suspend_and_its_sleep_is_not_lost(scene: Scene, wake: str) -> None:
    """The clock's alarm, or the user, may be faster than the main thread, which is yet to stop the vCPUs."""
    assert scene.run(then(suspend, WAKES[wake]), power_off) is StopReason.POWEROFF
    goes_on(scene)


@pytest.mark.parametrize("wake", WAKES)
def test_wake_while_the_devices_come_to_rest_is_not_lost(scene: Scene, wake: str) -> None:
    scene.guest.stopped = WAKES[wake]
    assert scene.run(suspend, power_off) is StopReason.POWEROFF
    goes_on(scene)


@pytest.mark.parametrize("wake", WAKES)
def test_sleeper_is_woken(scene: Scene, wake: str) -> None:
    states: list[State] = []

    def later(machine: Machine) -> None:
        states.append(machine.power.state)
        WAKES[wake](machine)

    scene.guest.stopped = lambda machine: machine.main_loop.call_soon(lambda: later(machine))
    assert scene.run(suspend, power_off) is StopReason.POWEROFF
    assert states == [State.ASLEEP]
    goes_on(scene)


def test_manager_resumes_a_guest_that_is_about_to_sleep(scene: Scene) -> None:
    """As the command monitor does; and is told that there was something to resume."""
    resumed: list[bool] = []
    resume = lambda machine: resumed.append(machine.power.wake())  # noqa: E731
    assert scene.run(then(suspend, resume), power_off) is StopReason.POWEROFF
    assert resumed == [True]


def test_wake_of_a_guest_that_runs_does_not_end_its_next_sleep(scene: Scene) -> None:
    scene.guest.stopped = lambda machine: machine.main_loop.call_soon(
        lambda: machine.power.request(StopReason.POWEROFF, "it slept")
    )
    assert scene.run(then(WAKES["alarm"], suspend)) is StopReason.POWEROFF
    assert scene.machine.detail == "it slept"


def test_reset_by_another_vcpu_outdoes_the_sleep(scene: Scene) -> None:
    reset = lambda machine: write(machine, RESET_CONTROL, 1, FULL_RESET)  # noqa: E731
    assert scene.run(then(suspend, reset), power_off) is StopReason.POWEROFF
    assert scene.guest.heard == ["started", "reset", "started", "poweroff"]
    assert scene.machine.power.reboots == 1


def test_guest_sleeps_a_hundred_times_while_threads_wake_it_and_no_wake_is_lost(scene: Scene) -> None:
    """In every other round they are done before the main thread looks, in the others it looks meanwhile."""
    rounds = 100
    asked, woken = ([threading.Event() for _ in range(rounds)] for _ in range(2))

    def sleep(number: int) -> Step:
        def program(machine: Machine) -> None:
            suspend(machine)
            asked[number].set()
            assert number % 2 or woken[number].wait(PATIENCE_S)

        return program

    def wake() -> None:
        for number in range(rounds):
            assert asked[number].wait(PATIENCE_S)
            scene.machine.power.wake()
            woken[number].set()

    threads = [threading.Thread(target=wake) for _ in range(3)]
    for thread in threads:
        thread.start()
    reason = scene.run(*(sleep(number) for number in range(rounds)), power_off)
    for thread in threads:
        thread.join()
    assert (reason, scene.guest.heard.count("suspend")) == (StopReason.POWEROFF, rounds)
