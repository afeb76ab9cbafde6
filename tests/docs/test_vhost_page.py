"""What docs/how-to/vhost.md shows works: the tracer, and every option it names."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.resolve import resolve_devices
from tests.virtio.parts import SLOT, machine_with

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "vhost.md").read_text()


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def tracer(tmp_path: Path) -> ModuleType:
    """The module as shown, imported."""
    path = tmp_path / "tracer.py"
    path.write_text(block("python"))
    spec = importlib.util.spec_from_file_location("tracer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tracer_is_about_twenty_lines() -> None:
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("backend", ["vbs-u", "vhost"])
def test_tracer_prints_every_binding_and_disturbs_nothing(
    tracer: ModuleType, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with machine_with(backend=backend, plugins=[tracer]) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
        started = capsys.readouterr().out.splitlines()
        driver.function.mask(1)
        masked = capsys.readouterr().out.splitlines()
        driver.reset()
        stopped = capsys.readouterr().out.splitlines()
    assert sorted(line.split("(")[0] for line in started) == ["bind   IoEventFd"] * 2 + ["bind   IrqFd"] * 2
    assert [line.split("(")[0] for line in masked] == ["unbind IrqFd"]
    assert sorted(line.split("(")[0] for line in stopped) == ["unbind IoEventFd"] * 2 + ["unbind IrqFd"]
    base = driver.function.bars[4].base + 0x3000
    assert any(f"addr={base:#x}" in line for line in started)


def test_tracer_shows_a_refused_binding(tracer: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with machine_with(plugins=[tracer]) as machine:
        machine.start()
        machine.vm.fail("ioeventfd", 28)
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
    lines = [line for line in capsys.readouterr().out.splitlines() if "IoEventFd(" in line]
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("bind", "refused"),
        ("bind", "ok"),
        ("unbind", "ok"),
    ]


def test_entry_point_as_shown_names_the_module() -> None:
    assert tomllib.loads(block("toml"))["project"]["entry-points"]["acrn_dm"] == {"tracer": "tracer"}


OPTIONS = re.findall(r"`(virtio-[a-z]+),([^`]*)`", PAGE)


@pytest.mark.parametrize(("kind", "text"), OPTIONS, ids=[f"{kind},{text}" for kind, text in OPTIONS])
def test_option_in_the_table_is_understood(kind: str, text: str) -> None:
    device = DeviceSpec(bdf=Bdf(slot=3), kind=kind, text=text)
    config = MachineConfig(name="vm", devices=(device,))
    (resolved,) = resolve_devices(config, make_plugin_manager(entry_points=False))
    made = resolved.type.create(resolved.options, resolved.context)
    assert made.placement.backend == ("vhost-user" if "vhost-user" in text else "vhost")


@pytest.mark.parametrize(("key", "value"), [("vhost", True), ("vhost", "auto"), ("vhost-user", "/run/x.sock")])
def test_toml_key_is_understood(key: str, value: object) -> None:
    table = {key: value} if key == "vhost-user" else {key: value, "tap": "t0"}
    config = MachineConfig(name="vm", devices=(DeviceSpec(bdf=Bdf(slot=3), kind="virtio-net", table=table),))
    assert resolve_devices(config, make_plugin_manager(entry_points=False))[0].options
