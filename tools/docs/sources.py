"""The sources that Sphinx reads: the pages of ``docs/``, some of the project's root, and the generated ones."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from acrn_dm.contract.plugins import make_plugin_manager
from tools.docs import conformance, interface, tables
from tools.docs.markdown import toctree

ROOT = Path(__file__).resolve().parents[2]
FROM_ROOT = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s]+)(?=\))")


def write(target: Path) -> list[Path]:
    """Write all sources below *target*, which holds nothing else; return the pages."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(ROOT / "docs", target)
    for source, page in FROM_ROOT.items():
        put(target / page, from_root((ROOT / source).read_text(), page))
    for name, text in reference():
        put(target / "reference" / name, text)
    return sorted(target.rglob("*.md"))


def put(path: Path, text: str) -> None:
    """Write *text*; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def from_root(text: str, page: str) -> str:
    """*text* of a file of the root as *page*: links into ``docs/`` stay links, those to sources become plain names."""
    up = "../" * page.count("/")
    pages = {name: up + place for name, place in FROM_ROOT.items()}

    def here(found: re.Match[str]) -> str:
        link = found[1]
        return up + link.removeprefix("docs/") if link.startswith("docs/") else pages.get(link, link)

    text = LINK.sub(here, text)
    return re.sub(r"\[([^\]]+)\]\((?!\w+:|#|\.\./)[^)]+\)", r"`\1`", text)


def reference() -> Iterator[tuple[str, str]]:
    """Name and text of every generated page."""
    manager = make_plugin_manager()
    yield "devices.md", tables.devices_page(manager)
    simple: dict[str, Callable[[], str]] = {
        "hooks.md": tables.hooks_page,
        "registers.md": tables.registers_page,
        "command-line.md": tables.command_line_page,
        "testing.md": interface.testing_page,
        "driver-clauses.md": tables.clauses_page,
        "fixtures.md": interface.fixtures_page,
    }
    for name, page in simple.items():
        yield name, page()
    yield from interface.interface_pages()
    yield from conformance.conformance_pages()
    yield from packages()


def packages() -> Iterator[tuple[str, str]]:
    """The read-me files of the packages in ``plugins/``, and a list of them."""
    files = sorted((ROOT / "plugins").glob("*/README.md"))
    yield "packages/index.md", "# Packages\n\n" + toctree([file.parent.name for file in files])
    for file in files:
        page = f"packages/{file.parent.name}.md"
        yield page, from_root(file.read_text(), f"reference/{page}")
