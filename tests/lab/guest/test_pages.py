"""What the documentation shows of stock guests: the pages that boot one, followed to their end."""

from pathlib import Path

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.places import HOME, home
from tests.docs.page_runner import ROOT, Block, Command, Reader, blocks, environment, own_programs

pytestmark = pytest.mark.lab


class Guests(Reader):
    """A reader who wants to see the guests and takes the other results as read: those are seen without a lab."""

    def type(self, command: Command) -> None:
        if "pytest" not in command.line or "guest" in command.line:
            super().type(command)


@pytest.mark.parametrize("page", ["tutorial.md", "how-to/guest.md"])
def test_page_that_boots_a_guest_can_be_followed(page: str, lab_kernel: Kernel, tmp_path: Path) -> None:
    assert [block for block in blocks((ROOT / "docs" / page).read_text()) if boots(block)]
    folder = tmp_path / "reader"
    folder.mkdir()
    settings = environment(tmp_path, own_programs(tmp_path / "venv")) | {HOME: str(home())}
    reader = Guests(folder=folder, environment=settings, has=frozenset({"in-a-guest"}), seconds=300)
    reader.follow((ROOT / "docs" / page).read_text())


def boots(block: Block) -> bool:
    """Whether it needs a guest."""
    return "in-a-guest" in block.needs
