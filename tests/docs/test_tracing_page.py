"""What docs/how-to/tracing.md shows works."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.virtio.parts import SLOT, machine_with

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "tracing.md").read_text()


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
