"""``make docs``: the generated reference names everything there is."""

import subprocess
import sys
from pathlib import Path

import pytest

import acrn_dm
from acrn_dm.contract import hookspecs
from acrn_dm.contract.plugins import make_plugin_manager

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, "-m", "tools.docs", str(target)], cwd=ROOT, check=True, capture_output=True)
    return target


def test_every_device_with_every_option_is_described(pages: Path) -> None:
    text = (pages / "devices.md").read_text()
    for name in make_plugin_manager().device_types():
        assert name in text


def test_every_hook_is_described(pages: Path) -> None:
    text = (pages / "hooks.md").read_text()
    for name in vars(hookspecs):
        if name.startswith("acrn_dm_"):
            assert f"## {name}\n" in text


def test_every_public_name_is_described_once(pages: Path) -> None:
    lines = (pages / "interface.md").read_text().splitlines()
    assert [line.removeprefix("### ") for line in lines if line.startswith("### ")] == acrn_dm.__all__


@pytest.mark.parametrize(
    ("author", "names"),
    [
        ("A virtio device", {"VirtioDevice", "Queue", "Chain"}),
        ("A PCI function", {"PciFunction", "Bar", "Msix"}),
        ("A backend", {"BackendType", "Backend", "Session", "SessionQueue", "KernelVhost"}),
        ("A hypervisor", {"HypervisorType", "HypervisorOptions", "Hypervisor", "Dispatch", "VmEvent", "BootRegisters"}),
        ("An observer", {"ObservedMachine", "MachineConfig"}),
    ],
)
def test_names_stand_under_whoever_needs_them(pages: Path, author: str, names: set[str]) -> None:
    sections = (pages / "interface.md").read_text().split("\n## ")
    (section,) = [s for s in sections if s.startswith(f"{author}:")]
    assert {name for name in names if f"\n### {name}\n" not in section} == set()


def test_members_and_values_are_described(pages: Path) -> None:
    text = (pages / "interface.md").read_text()
    assert "| `pio_read(self, port: int, size: int) -> int` | IN: *size* is 1, 2 or 4. |" in text
    assert "| `TRIPLE_FAULT` | triple fault |" in text


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("registers.md", ["`device_feature_select`", "`queue_address`", "`VERSION_1`", "`EVENT_IDX`"]),
        ("command-line.md", ["--dry-run", "Exit codes"]),
        ("README.md", ["make demo"]),
        ("ARCHITECTURE.md", ["The main path"]),
    ],
)
def test_page_has_its_content(pages: Path, page: str, words: list[str]) -> None:
    text = (pages / page).read_text()
    assert [word for word in words if word not in text] == []
