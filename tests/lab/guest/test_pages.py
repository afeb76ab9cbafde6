"""What the documentation shows of stock guests: the pages that boot one, followed to their end.

Their guests share an outer VM, since their tests share a run of pytest: each page has its files, as it says, in a
folder of its own.
"""

import os
import re
import sys
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.places import HOME, home
from tests.docs.page_runner import ROOT, Block, Command, Reader, blocks, environment, own_programs

PAGES = ("tutorial.md", "how-to/guest.md")
TESTS = re.compile(r"python -m pytest -q (\S+)")
COUNT = re.compile(r"(\d+) passed")


@attrs.define(eq=False)
class GuestReader(Reader):
    """A reader who wants to see the guests and takes the other results as read: those are seen without a lab.

    Tests in guests are put off; ``tests`` are their files, ``passed`` is how many the page says will pass.
    """

    tests: list[Path] = attrs.field(factory=list)
    passed: int = 0

    def type(self, command: Command) -> None:
        if "pytest" not in command.line:
            super().type(command)
        elif "guest" in command.line:
            (file,) = TESTS.fullmatch(command.line).groups()  # type: ignore[union-attr]
            (count,) = COUNT.findall(command.output)
            self.tests.append(Path(self.environment.get("PWD", self.folder)) / file)
            self.passed += int(count)


@pytest.mark.lab
def test_pages_that_boot_guests_can_be_followed(lab_kernel: Kernel, tmp_path: Path) -> None:
    settings = environment(tmp_path, own_programs(tmp_path / "venv")) | {HOME: str(home())}
    if sys.pycache_prefix:
        settings["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    readers = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text()
        assert [block for block in blocks(text) if boots(block)]
        folder = tmp_path / page.replace("/", "-")
        folder.mkdir()
        reader = GuestReader(folder=folder, environment=settings, has=frozenset({"in-a-guest"}), seconds=300)
        reader.follow(text)
        assert reader.tests
        readers.append(reader)
    files = " ".join(str(file) for reader in readers for file in reader.tests)
    passed = sum(reader.passed for reader in readers)
    # Two files of one name in two folders.
    line = f"python -m pytest -q --import-mode=importlib {files}"
    Reader.type(readers[0], Command(line=line, output=f"...\n{passed} passed...\n"))


def boots(block: Block) -> bool:
    """Whether it needs a guest."""
    return "in-a-guest" in block.needs


def test_every_page_that_boots_a_guest_is_followed() -> None:
    docs = ROOT / "docs"
    found = {
        os.fspath(page.relative_to(docs)) for page in docs.rglob("*.md") if any(map(boots, blocks(page.read_text())))
    }
    assert found == set(PAGES)
