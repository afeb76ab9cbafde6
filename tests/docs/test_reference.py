"""The generated sources of the reference name everything there is."""

from pathlib import Path

import pytest

import acrn_dm
import acrn_dm.testing
import acrn_dm_pytest
from acrn_dm.contract import hookspecs
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.testing.conformance.table import rows
from tools.docs.sources import from_root, write


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs") / "sources"
    write(target)
    return target / "reference"


def headings(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def test_every_device_with_every_option_is_described(pages: Path) -> None:
    text = (pages / "devices.md").read_text()
    for name in make_plugin_manager().device_types():
        assert name in text


def test_every_hook_is_described(pages: Path) -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("acrn_dm_")]
    assert headings((pages / "hooks.md").read_text()) == hooks


def test_every_public_name_is_described_once(pages: Path) -> None:
    described = [name for page in (pages / "interface").glob("*.md") for name in headings(page.read_text())]
    assert sorted(described) == sorted(acrn_dm.__all__)


def test_every_row_of_the_suite_is_described_once(pages: Path) -> None:
    text = "".join(page.read_text() for page in (pages / "conformance").glob("*.md"))
    assert [row for row in rows() if text.count(f"| `{row}` |") != 1] == []


def test_every_fixture_is_described(pages: Path) -> None:
    fixtures = [name for name in vars(acrn_dm_pytest) if name.startswith("dm_")]
    assert headings((pages / "fixtures.md").read_text()) == fixtures


def test_every_name_of_the_kit_is_described(pages: Path) -> None:
    assert headings((pages / "testing.md").read_text()) == list(acrn_dm.testing.__all__)


@pytest.mark.parametrize(
    ("author", "names"),
    [
        ("a-virtio-device", {"VirtioDevice", "Queue", "Chain"}),
        ("a-pci-function", {"PciFunction", "Bar", "Msix"}),
        ("a-backend", {"BackendType", "Backend", "Session", "SessionQueue", "KernelVhost"}),
        ("a-hypervisor", {"HypervisorType", "HypervisorOptions", "Hypervisor", "Dispatch", "VmEvent", "BootRegisters"}),
        ("an-observer", {"ObservedMachine", "MachineConfig"}),
    ],
)
def test_names_stand_under_whoever_needs_them(pages: Path, author: str, names: set[str]) -> None:
    assert names <= set(headings((pages / "interface" / f"{author}.md").read_text()))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("reference/registers.md", ["`device_feature_select`", "`queue_address`", "`VERSION_1`", "`EVENT_IDX`"]),
        ("reference/command-line.md", ["--dry-run", "Exit codes"]),
        ("explanation/architecture.md", ["The main path"]),
    ],
)
def test_page_has_its_content(pages: Path, page: str, words: list[str]) -> None:
    text = (pages.parent / page).read_text()
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[vhost](docs/how-to/vhost.md)", "[vhost](../how-to/vhost.md)"),
        ("[all](ARCHITECTURE.md)", "[all](../explanation/architecture.md)"),
        ("[a package](plugins/acrn-dm-rng)", "`a package`"),
        ("[spec](https://example.org/a.md)", "[spec](https://example.org/a.md)"),
    ],
)
def test_link_of_a_page_from_the_root_leads_where_it_is_read(written: str, shown: str) -> None:
    assert from_root(written, "project/page.md") == shown
