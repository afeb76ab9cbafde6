"""Every page of the documentation, followed from its first line to its last; nothing that it shows is left unrun."""

from pathlib import Path

import pytest

from tests.docs.page_runner import ROOT, Reader, blocks, environment, own_programs

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
SHOWN = (
    "python",
    "console",
    "toml",
    "sh",
    "cython",
    "json",
    "ini",
    "yaml",
    "make",
    "xml",
)  # what a reader may want to use
NOTHING_TO_RUN = ("toctree", "eval-rst", "text")
NEEDS = {"in-a-guest"}  # what some test has that this one has not: tests/lab/guest/test_pages.py
TUTORIAL = "tutorial.md"  # tests/packaging/test_packages.py follows it beside the wheel alone


@pytest.mark.parametrize("page", PAGES)
def test_nothing_that_a_page_shows_is_left_unrun(page: str) -> None:
    for block in blocks((DOCS / page).read_text()):
        if block.language in NOTHING_TO_RUN:
            continue
        where = f"{page}: the block that begins with {block.text.splitlines()[:1]}"
        assert block.language in SHOWN, f"{where} is in {block.language or 'no language'}"
        assert block.needs <= NEEDS, f"{where} needs what no test has"
        if block.shown_by:
            assert (ROOT / block.shown_by).exists(), f"{where}: there is no {block.shown_by}"
        elif block.quoted_from:
            lines = {line.strip() for line in (ROOT / block.quoted_from).read_text().splitlines()}
            assert {line.strip() for line in block.text.splitlines()} <= lines, f"{where} is not in {block.quoted_from}"
        else:
            assert block.caption or block.language == "console", f"{where} is neither a file nor a command"


def followed(page: str) -> bool:
    """Whether there is something to do on *page* for somebody who has nothing but the package."""
    return any(
        not b.shown_by and not b.quoted_from and not b.needs and b.language in SHOWN
        for b in blocks((DOCS / page).read_text())
    )


@pytest.mark.stress
@pytest.mark.parametrize("page", [page for page in PAGES if followed(page) and page != TUTORIAL])
def test_page_can_be_followed(page: str, tmp_path: Path) -> None:
    """In a folder and an environment of its own, in which everything is that is installed here."""
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(folder=folder, environment=environment(tmp_path, own_programs(tmp_path / "venv")))
    assert reader.follow((DOCS / page).read_text()) > 0
