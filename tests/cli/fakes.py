"""A command line without a hypervisor: the built-in devices and a toy one, and a machine that only reports."""

import enum
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs

from acrn_dm.cli import main
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.options import option
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import DeviceType, HypervisorType
from acrn_dm.machine.report import BarReport, DeviceReport, MachineReport, RangeReport, UartReport
from acrn_dm.machine.resolve import resolve_devices
from acrn_dm.memory.guest_memory import guest_ranges


@attrs.frozen(kw_only=True)
class NoOptions:
    """A device that has none."""


@attrs.frozen(kw_only=True)
class ToyOptions:
    """The common grammar."""

    size: int = option(default=4, help="How much of it.")
    label: str = option(default="", help="What it is called.")
    loud: bool = option(default=False, help="Say so.")


def device_type(name: str, config: type, **more: Any) -> DeviceType:
    return DeviceType(name=name, summary=f"a {name} for tests", config=config, create=lambda c, x: None, **more)


DEVICES = ("hostbridge", "lpc", "virtio_net", "virtio_blk", "virtio_console")
BUILTINS = {f"devices.{name}": f"acrn_dm.devices.{name}" for name in DEVICES}
TYPES = (device_type("toy", ToyOptions, aliases=("plaything",)),)

HYPERVISORS = (
    HypervisorType(name="sim", summary="in this process", probe=lambda: None, open=lambda o: None, rank=-1),
    HypervisorType(name="kvm", summary="Linux KVM", probe=lambda: "no /dev/kvm here", open=lambda o: None, rank=10),
)


def plugin(name: str, **hooks: Callable[..., Any]) -> ModuleType:
    """A plugin module with these hook implementations."""
    module = ModuleType(name)
    vars(module).update({hook: hookimpl(function) for hook, function in hooks.items()})
    return module


FAKES = plugin("fakes", acrn_dm_device_types=lambda: TYPES, acrn_dm_hypervisor_types=lambda: HYPERVISORS)


def managing(*more: object) -> Callable[..., PluginManager]:
    """A ``make_plugin_manager`` with the built-in devices, the fakes and *more* plugins, and nothing installed."""

    def make(**arguments: Any) -> PluginManager:
        return make_plugin_manager(builtins=BUILTINS, entry_points=False, extra=[FAKES, *more])

    return make


class Reason(enum.Enum):
    """Like ``machine.machine.StopReason``."""

    POWEROFF = "poweroff"
    ERROR = "error"


@attrs.define(eq=False)
class FakeMachine:
    """Reports what was asked for; ``run`` ends at once, as told."""

    config: MachineConfig
    plugins: PluginManager
    missing: list[str] = attrs.field(factory=list)
    outcome: Any = Reason.POWEROFF  # an exception is raised by run()
    detail: str = ""
    calls: list[str] = attrs.field(factory=list)

    def describe(self) -> MachineReport:
        bars = (BarReport(index=0, kind="mem64", address=0x40_0000_0000, size=0x4000),)
        devices = tuple(
            DeviceReport(bdf=str(d.spec.bdf), kind=d.spec.kind, vendor=0x1AF4, device=0x1042, bars=bars, vectors=2)
            for d in resolve_devices(self.config, self.plugins)
        )
        uarts = tuple(
            UartReport(port=f"COM{u.number}", io_base=0x3F8, irq=4, backend=u.backend) for u in self.config.uarts
        )
        ranges = tuple(RangeReport(gpa=r.gpa, size=r.size) for r in guest_ranges(self.config.memory_bytes))
        name, vcpus = self.config.name, self.config.vcpus
        return MachineReport(name=name, hypervisor="kvm", vcpus=vcpus, memory=ranges, devices=devices, uarts=uarts)

    def check(self) -> list[str]:
        self.calls.append("check")
        return self.missing

    def realize(self) -> None:
        self.calls.append("realize")

    def run(self) -> Any:
        self.calls.append("run")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def close(self) -> None:
        self.calls.append("close")

    def press_power_button(self) -> None:
        self.calls.append("power button")

    def window_changed(self) -> None:
        self.calls.append("window")


@attrs.define(eq=False)
class Cli:
    """Runs ``main`` with the fakes; ``machine`` is what the last run built."""

    capsys: Any
    extra: tuple[object, ...] = ()
    machine_options: dict[str, Any] = attrs.field(factory=dict)
    machine: FakeMachine | None = None

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.machine = None
        code = main(list(args), make_manager=managing(*self.extra), build=self._build)
        out, err = self.capsys.readouterr()
        return code, out, err

    def config(self, *args: str) -> MachineConfig:
        """The configuration that a correct command line gives."""
        code, _, err = self(*args)
        assert code == 0, err
        assert self.machine is not None
        return self.machine.config

    def report(self, *args: str) -> Any:
        """The JSON report of a dry run."""
        code, out, err = self(*args, "--dry-run", "--json")
        assert code == 0, err
        return json.loads(out)

    def _build(self, config: MachineConfig, plugins: PluginManager) -> FakeMachine:
        resolve_devices(config, plugins)
        self.machine = FakeMachine(config=config, plugins=plugins, **self.machine_options)
        return self.machine
