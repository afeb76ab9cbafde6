"""Values of options that a plugin adds: its devices and its hypervisor are given them, whatever the source."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm import DeviceContext, DeviceType, HypervisorOptions, HypervisorType, VirtioDevice, hookimpl
from acrn_dm.cli import main
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.machine.machine import Machine, StopReason
from tests.boot.samples import make_bzimage
from tests.cli.fakes import NoOptions


class Traced(VirtioDevice):
    device_id = 42


class Tracer:
    """A plugin with two options, a device and a hypervisor; keeps what the two are given."""

    __name__ = "tracer"

    def __init__(self) -> None:
        self.device: Mapping[str, object] = {}
        self.checked: Mapping[str, object] = {}
        self.opened: Mapping[str, object] = {}

    @hookimpl
    def acrn_dm_add_options(self, parser: Any) -> None:
        parser.add_option("trace-file", help="where to", metavar="PATH", default="/tmp/t")
        parser.add_option("trace", help="trace it")

    @hookimpl
    def acrn_dm_device_types(self) -> list[DeviceType]:
        return [DeviceType(name="traced", summary="", config=NoOptions, create=self._create)]

    @hookimpl
    def acrn_dm_hypervisor_types(self) -> list[HypervisorType]:
        probe = lambda: None  # noqa: E731
        return [HypervisorType(name="traced", summary="", probe=probe, open=self._open, check=self._check)]

    @hookimpl
    def acrn_dm_machine_started(self, machine: Machine) -> None:
        machine.power.request(StopReason.POWEROFF)

    def _create(self, options: NoOptions, context: DeviceContext) -> Traced:
        self.device = context.plugin_options
        return Traced(context)

    def _check(self, options: HypervisorOptions) -> list[str]:
        self.checked = options.plugin_options
        return []

    def _open(self, options: HypervisorOptions) -> SimVm:
        self.opened = options.plugin_options
        return SimVm(name=options.name)


@attrs.frozen
class Run:
    """Runs a machine with the plugin's device and hypervisor to its end."""

    folder: Path

    def __call__(self, *args: str, toml: str = "") -> Tracer:
        tracer = Tracer()

        def make_manager(**arguments: Any) -> PluginManager:
            return make_plugin_manager(entry_points=False, extra=[tracer])

        (self.folder / "vm.toml").write_text(toml)
        needed = ["-m", "128M", "-k", str(self.folder / "kernel"), "--manager-directory", str(self.folder / "mngr")]
        needed += ["--config", str(self.folder / "vm.toml"), "--hypervisor", "traced", "-s", "3,traced"]
        assert main([*needed, *args, "vm"], make_manager=make_manager) == 0
        return tracer


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "kernel").write_bytes(make_bzimage())
    return Run(tmp_path)


SOURCES = pytest.mark.parametrize(
    ("args", "toml", "values"),
    [
        ((), "", {"trace-file": "/tmp/t", "trace": False}),
        (("--trace-file=/x", "--trace"), "", {"trace-file": "/x", "trace": True}),
        ((), 'trace_file = "/y"\ntrace = true', {"trace-file": "/y", "trace": True}),
        (("--trace-file=/x",), 'trace-file = "/y"', {"trace-file": "/x", "trace": False}),
    ],
    ids=["default", "command line", "TOML", "both"],
)


@SOURCES
def test_device_is_given_the_values(run: Run, args: tuple[str, ...], toml: str, values: dict[str, object]) -> None:
    assert run(*args, toml=toml).device == values


@SOURCES
def test_hypervisor_is_given_the_values(run: Run, args: tuple[str, ...], toml: str, values: dict[str, object]) -> None:
    assert run(*args, toml=toml).opened == values


def test_hypervisors_check_is_given_the_values_before_anything_is_open(run: Run) -> None:
    tracer = run("--trace", "--dry-run")
    assert tracer.checked == {"trace-file": "/tmp/t", "trace": True}
    assert tracer.opened == {}


def test_values_of_built_in_options_come_only_to_who_takes_them(run: Run) -> None:
    assert "rtvm" not in run("--rtvm").opened
