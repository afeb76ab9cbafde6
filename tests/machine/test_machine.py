"""machine.machine: the life of a machine on the simulated hypervisor, whose guest is a list of register writes."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from acrn_dm.base.errors import ConfigError, HostError, PluginError
from acrn_dm.contract.config import DeviceSpec, MachineConfig, UartSpec
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.contract.plugins import BUILTINS, PluginManager, make_plugin_manager
from acrn_dm.contract.types import Bdf, DeviceContext, DeviceType, HypervisorType
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine, StopReason
from acrn_dm.virtio.device import VirtioDevice
from tests.boot.samples import make_bzimage

PM1_CONTROL, RESET_CONTROL, DEBUG_EXIT = 0x404, 0xCF9, 0xF4
S5 = 5 << 10 | 1 << 13  # SLP_TYP 5, SLP_EN
KEYBOARD_COMMAND, PULSE_RESET = 0x64, 0xFE
SMI_COMMAND, ACPI_ENABLE = 0xB2, 0xA0
PM1_ENABLE, POWER_BUTTON = 0x402, 1 << 8
GUEST_WORD = 0x40_0000


@attrs.frozen(kw_only=True)
class NoOptions:
    pass


class Thing(VirtioDevice):
    """A device that remembers what was done to it, and can be told to fail."""

    device_id = 4
    events: list[str] = []
    failing = ""

    def realize(self, resources: Any) -> None:
        self.note("realize")

    def stop(self) -> None:
        self.note("stop")

    def close(self) -> None:
        self.note("close")

    def check(self) -> list[str]:
        return ["the thing is missing"] if self.failing == "check" else []

    def note(self, what: str) -> None:
        self.events.append(f"{what} {self.context.bdf.slot}")
        if self.failing == what:
            raise HostError(f"{what} went wrong")


def broken(*_: object) -> Any:
    raise ZeroDivisionError("a bug")


class BrokenRealize(Thing):
    realize = broken


class BrokenCheck(Thing):
    check = broken


class Extras:
    """The plugin of these tests: the device, and an observer."""

    __name__ = "extras"

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def acrn_dm_device_types(self) -> list[DeviceType]:
        def create(options: NoOptions, context: DeviceContext) -> Thing:
            return Thing(context)

        return [
            DeviceType(name="thing", summary="", config=NoOptions, create=create),
            DeviceType(name="nothing", summary="", config=NoOptions, create=lambda o, c: "no device"),
            DeviceType(name="on-terminal", summary="", config=NoOptions, create=lambda o, c: OnTerminal(c)),
            DeviceType(name="broken-create", summary="", config=NoOptions, create=broken),
            DeviceType(name="broken-realize", summary="", config=NoOptions, create=lambda o, c: BrokenRealize(c)),
            DeviceType(name="broken-check", summary="", config=NoOptions, create=lambda o, c: BrokenCheck(c)),
        ]

    @hookimpl
    def acrn_dm_machine_built(self, machine: Machine) -> None:
        self.seen.append(f"built, memory {machine.memory}")

    @hookimpl
    def acrn_dm_machine_started(self, machine: Machine) -> None:
        self.seen.append(f"started {machine.power.reboots}")

    @hookimpl
    def acrn_dm_machine_stopped(self, machine: Machine, reason: str) -> None:
        self.seen.append(f"stopped: {reason}")


@attrs.define
class Scene:
    extras: Extras
    plugins: PluginManager
    config: MachineConfig
    machines: list[Machine] = attrs.field(factory=list)

    def build(self, **changes: Any) -> Machine:
        self.machines.append(build(attrs.evolve(self.config, **changes), self.plugins, threads=False))
        return self.machines[-1]

    def start(self, **changes: Any) -> Machine:
        machine = self.build(**changes)
        machine.realize()
        return machine


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(make_bzimage())
    Thing.events, Thing.failing = [], ""
    extras = Extras()
    devices = tuple(DeviceSpec(bdf=Bdf(slot=slot), kind="thing") for slot in (3, 4))
    config = MachineConfig(hypervisor="sim", kernel=kernel, devices=devices)
    it = Scene(extras, make_plugin_manager(entry_points=False, extra=[extras]), config)
    yield it
    Thing.failing = ""
    for machine in it.machines:
        machine.close()


def guest(machine: Machine, *steps: Callable[[SimVm], object]) -> None:
    """Let the guest take one step after the other; each on a loop turn of its own, as accesses between exits would."""
    for step in steps:
        machine.main_loop.call_soon(lambda step=step: step(cast(SimVm, machine.vm)))


def power_off(vm: SimVm) -> None:
    vm.pio_write(PM1_CONTROL, 2, S5)


def test_power_off_ends_the_run(scene: Scene) -> None:
    machine = scene.start()
    guest(machine, power_off)
    assert machine.run() is StopReason.POWEROFF
    assert scene.extras.seen == ["built, memory None", "started 0", "stopped: poweroff"]


@pytest.mark.parametrize(
    ("port", "value"),
    [(RESET_CONTROL, 0x0E), (RESET_CONTROL, 0x06), (KEYBOARD_COMMAND, PULSE_RESET)],
    ids=["full", "system", "keyboard controller"],
)
def test_reset_boots_again_with_cleared_memory_and_stopped_devices(scene: Scene, port: int, value: int) -> None:
    machine = scene.start()
    found: list[bytes] = []

    def scribble_and_reset(vm: SimVm) -> None:
        assert machine.memory is not None
        machine.memory.write(GUEST_WORD, b"stale")
        vm.pio_write(port, 1, value)
        machine.main_loop.call_soon(lambda: guest(machine, look_and_power_off))

    def look_and_power_off(vm: SimVm) -> None:
        assert machine.memory is not None
        found.append(machine.memory.read(GUEST_WORD, 5))
        power_off(vm)

    guest(machine, scribble_and_reset)
    assert machine.run() is StopReason.POWEROFF
    assert found == [bytes(5)]
    assert machine.power.reboots == 1
    assert scene.extras.seen[1:] == ["started 0", "stopped: reset", "started 1", "stopped: poweroff"]


def test_debug_exit_ends_the_run_where_it_was_asked_for(scene: Scene) -> None:
    machine = scene.start(debugexit=True)
    guest(machine, lambda vm: vm.pio_write(DEBUG_EXIT, 1, 0x10))
    assert (machine.run(), machine.detail) == (StopReason.DEBUG_EXIT, "code 0x10")


def test_first_press_of_the_power_button_reaches_the_guest(scene: Scene) -> None:
    machine = scene.start()
    machine.press_power_button()
    levels: list[bool] = []

    def serve_sci(vm: SimVm) -> None:
        levels.append(vm.line(9))
        power_off(vm)

    guest(
        machine,
        lambda vm: vm.pio_write(SMI_COMMAND, 1, ACPI_ENABLE),
        lambda vm: vm.pio_write(PM1_ENABLE, 2, POWER_BUTTON),
        serve_sci,
    )
    assert machine.run() is StopReason.POWEROFF
    assert levels == [True]


def test_second_press_forces_the_guest_off(scene: Scene) -> None:
    machine = scene.start()
    machine.press_power_button()
    machine.press_power_button()
    assert (machine.run(), machine.detail) == (StopReason.FORCED, "asked a second time")


def test_guest_that_ignores_the_button_is_forced_off_in_time(scene: Scene) -> None:
    machine = scene.start(shutdown_timeout_s=0.05)
    machine.press_power_button()
    assert (machine.run(), machine.detail) == (StopReason.FORCED, "the guest did not power off in time")


def test_forced_stop_outdoes_a_reset_that_came_first(scene: Scene) -> None:
    machine = scene.start()
    machine.power.request(StopReason.RESET)
    machine.power.request(StopReason.FORCED, "now")
    assert (machine.run(), machine.power.reboots) == (StopReason.FORCED, 0)


def test_early_triple_fault_is_an_error_and_a_late_one_a_reboot(scene: Scene) -> None:
    machine = scene.start()
    guest(machine, lambda vm: vm.vcpu_ends(VmEvent.TRIPLE_FAULT, "rip 0x0"))
    assert machine.run() is StopReason.ERROR
    assert re.fullmatch(r"triple fault \d+ ms after its start: rip 0x0", machine.detail)
    machine = scene.start()
    machine.guest.faults.clock = lambda: 1e9
    machine.guest.vm_event(VmEvent.TRIPLE_FAULT, "")
    assert machine.power.reason is StopReason.RESET


def test_power_off_without_acpi_is_one_where_triple_faults_are_told(scene: Scene) -> None:
    machine = scene.start()
    guest(machine, lambda vm: vm.pio_write(PM1_CONTROL, 2, 0x3400))
    assert machine.run() is StopReason.POWEROFF


def test_stop_drains_devices_before_close_gives_them_back(scene: Scene) -> None:
    machine = scene.start()
    guest(machine, power_off)
    machine.run()
    machine.close()
    assert Thing.events[:2] == ["realize 3", "realize 4"]
    assert [e for e in Thing.events if e.startswith("close")] == ["close 4", "close 3"]


def test_close_goes_on_after_a_device_that_fails(scene: Scene) -> None:
    machine = scene.start()
    Thing.failing = "close"
    with pytest.raises(HostError, match="close went wrong"):
        machine.close()
    assert [e for e in Thing.events if e.startswith("close")] == ["close 4", "close 3"]
    assert machine.vm is None


def test_failed_realize_leaves_nothing_behind_after_close(scene: Scene) -> None:
    before = (set(os.listdir("/proc/self/fd")), threading.active_count())
    machine = scene.build()
    Thing.failing = "realize"
    with pytest.raises(HostError, match="realize went wrong"):
        machine.realize()
    machine.close()
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_check_gathers_everything_that_is_missing(scene: Scene, tmp_path: Path) -> None:
    Thing.failing = "check"
    machine = scene.build(kernel=tmp_path / "absent")
    lines = machine.check()
    assert len(lines) == 3
    assert "absent" in lines[0]
    assert lines[1:] == ["the thing is missing"] * 2
    assert Thing.events == []


def test_build_opens_nothing(scene: Scene) -> None:
    machine = scene.build()
    assert (machine.vm, machine.memory, Thing.events) == (None, None, [])
    assert [d.kind for d in machine.describe().devices] == ["thing", "thing"]


def test_factory_that_makes_no_device_is_reported_with_its_plugin(scene: Scene) -> None:
    with pytest.raises(ConfigError, match=r"plugin extras .* made a str, which is no device"):
        scene.build(devices=(DeviceSpec(bdf=Bdf(slot=3), kind="nothing"),))


def test_unusable_hypervisor_still_builds_and_is_named_by_check(scene: Scene) -> None:
    plugins = make_plugin_manager(
        builtins={name: module for name, module in BUILTINS.items() if "hypervisors" not in name},
        entry_points=False,
        extra=[scene.extras],
    )
    machine = build(attrs.evolve(scene.config, hypervisor="auto"), plugins, threads=False)
    try:
        assert "no hypervisor can be used here" in machine.check()[0]
        with pytest.raises(ConfigError, match="no hypervisor can be used here"):
            machine.realize()
    finally:
        machine.close()


@pytest.mark.parametrize("what", ["create", "realize", "check"])
def test_device_that_breaks_names_its_plugin_and_itself(scene: Scene, what: str) -> None:
    def start() -> None:
        machine = scene.build(devices=(DeviceSpec(bdf=Bdf(slot=7), kind=f"broken-{what}"),))
        machine.check()
        machine.realize()

    with pytest.raises(PluginError, match=rf"plugin extras .*broken-{what}.*ZeroDivisionError: a bug"):
        start()


@pytest.mark.parametrize("call", ["probe", "open"])
def test_hypervisor_that_breaks_names_its_plugin(scene: Scene, call: str) -> None:
    kind = HypervisorType(**{"name": "own", "summary": "", "probe": lambda: None, "open": broken, call: broken})

    class Own:
        __name__ = "own-hypervisor"

        @hookimpl
        def acrn_dm_hypervisor_types(self) -> list[HypervisorType]:
            return [kind]

    plugins = make_plugin_manager(entry_points=False, extra=[scene.extras, Own()])

    def start() -> None:
        scene.machines.append(build(attrs.evolve(scene.config, hypervisor="own"), plugins, threads=False))
        scene.machines[-1].realize()

    with pytest.raises(PluginError, match=r"plugin own-hypervisor .*ZeroDivisionError: a bug"):
        start()


class OnTerminal(Thing):
    uses_terminal = True


@pytest.mark.parametrize(
    ("uarts", "things", "named"),
    [
        (["stdio"], 0, None),
        (["", "stdio"], 0, None),
        ([], 1, None),
        (["stdio", "stdio"], 0, "-l com1, -l com2"),
        (["", "stdio"], 1, "-l com2, on-terminal-6:0"),
        ([], 2, "on-terminal-6:0, on-terminal-7:0"),
    ],
)
def test_second_user_of_the_terminal_is_found_before_the_start(
    scene: Scene, uarts: list[str], things: int, named: str | None
) -> None:
    machine = scene.build(
        uarts=tuple(UartSpec(number=n, backend=text) for n, text in enumerate(uarts, 1)),
        devices=tuple(DeviceSpec(bdf=Bdf(slot=6 + n), kind="on-terminal") for n in range(things)),
    )
    lines = machine.check()
    assert lines == (
        [] if named is None else [f"standard input and output can be used by one device only, not by {named}"]
    )


def test_terminal_that_changed_its_size_is_told_to_every_device_on_the_main_loop(scene: Scene) -> None:
    told: list[tuple[int, str]] = []

    def window_changed(thing: Thing) -> None:
        told.append((thing.context.bdf.slot, threading.current_thread().name))

    machine = scene.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thing, "window_changed", window_changed, raising=False)
        machine.window_changed()  # as the signal's handler does
        assert told == []
        machine.main_loop.run_until_idle()
    assert told == [(3, "MainThread"), (4, "MainThread")]
