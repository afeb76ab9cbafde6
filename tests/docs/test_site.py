"""``make docs``: a site without a warning, in which every public name, hook and member can be found."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import acrn_dm
import acrn_dm.testing
from acrn_dm.contract import hookspecs
from tools.docs.sources import ROOT

pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "html"
    # Half the time would go into copies of all members' names for the margin of each page.
    built = run("-m", "tools.docs", str(target), "1", "-D", "toc_object_entries=0")
    assert (built.returncode, built.stderr) == (0, "")
    return target


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Python by itself: a deprecation inside Sphinx is no fault of the pages."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def described(site: Path) -> set[str]:
    """Every Python name that the site can be asked for."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {name for kind, names in inventory.data.items() if kind.startswith("py:") for name in names}


def shown(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text())


@pytest.mark.parametrize("module", [acrn_dm, acrn_dm.testing], ids=lambda module: module.__name__)
def test_every_public_name_can_be_found(described: set[str], module: object) -> None:
    names = {f"{module.__name__}.{name}" for name in module.__all__}  # type: ignore[attr-defined]
    assert names - described == set()


def test_every_hook_can_be_found(described: set[str]) -> None:
    hooks = {f"{hookspecs.__name__}.{name}" for name in vars(hookspecs) if name.startswith("acrn_dm_")}
    assert hooks - described == set()


@pytest.mark.parametrize("name", acrn_dm.__all__)
def test_every_public_method_can_be_found(described: set[str], name: str) -> None:
    value = getattr(acrn_dm, name)
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return
    methods = {m for m, f in vars(value).items() if not m.startswith("_") and inspect.isroutine(f)}
    assert {m for m in methods if f"acrn_dm.{name}.{m}" not in described} == set()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("a-hypervisor", "IN: size is 1, 2 or 4."),
        ("a-hypervisor", "triple fault"),
        ("a-device", "PCI subsystem vendor 0x108E instead of 0x1AF4"),  # the comment at the end of a field's line
        ("a-device", "poll_ns: int | None"),
    ],
)
def test_members_stand_there_with_type_and_meaning(site: Path, page: str, words: str) -> None:
    text = shown(site / "reference" / "interface" / f"{page}.html")
    assert words in " ".join(text.replace("\xa0", " ").split())


def test_site_can_be_searched(site: Path) -> None:
    assert (
        "VirtioDevice" in (site / "searchindex.js").read_text()
        or "virtiodevice" in (site / "searchindex.js").read_text()
    )


def test_warning_is_an_error(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "conf.py").write_text('extensions = ["myst_parser"]\n')
    (sources / "index.md").write_text("# Page\n\n[nowhere](missing.md)\n")
    built = run(
        "-c",
        "import sys; from tools.docs import site; sys.exit(not site.build(*map(site.Path, sys.argv[1:])))",
        str(sources),
        str(tmp_path / "html"),
    )
    assert built.returncode == 1
    assert "missing.md" in built.stderr
