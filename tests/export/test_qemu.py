"""The lines for QEMU of the pages about exporting, as they stand there, but for the place of the files."""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.user.user_rig import Daemon
from tests.docs.page_runner import ROOT, lines_for

PAGES = ("exporting.md", "exporting/qemu.md")
QEMU = "qemu-system-x86_64"
pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"there is no {QEMU}")


def commands(program: str, folder: Path) -> list[list[str]]:
    """The command lines of *program* on the pages that belong to QEMU, with files in *folder*."""
    texts = [(ROOT / "docs" / "how-to" / page).read_text() for page in PAGES]
    lines = [line for text in texts for line in lines_for(text, "tests/export/test_qemu.py")]
    placed = [line.replace("/run/", f"{folder}/").replace("./disk.img", f"{folder}/disk.img") for line in lines]
    found = [shlex.split(line.rstrip("&")) for line in placed if line.startswith(f"{program} ")]
    assert found
    return found


@contextlib.contextmanager
def exports(folder: Path) -> Iterator[None]:
    """The page's back-ends."""
    (folder / "disk.img").write_bytes(bytes(4 << 20))
    with contextlib.ExitStack() as stack:
        for number, (_, *words) in enumerate(commands("acrn-dm-export", folder)):
            path = Path(next(word.partition("=")[2] for word in words if word.startswith("--socket-path=")))
            daemon = Daemon([sys.executable, "-m", "acrn_dm.export.cli", *words], path, folder / f"log{number}")
            daemon.start()
            stack.callback(daemon.kill)
        yield


def test_qemu_takes_the_exported_devices(tmp_path: Path) -> None:
    """It asks them for features and configuration when it makes its devices, and says so where they don't suit it."""
    ((_, *words),) = commands(QEMU, tmp_path)
    assert words.pop() == "..."
    argv = [QEMU, *words, "-S", "-display", "none", "-nodefaults", "-monitor", "stdio"]
    with exports(tmp_path):
        asked = "info qtree\ninfo virtio\nquit\n"
        result = subprocess.run(argv, input=asked, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert {"virtio-blk", "virtio-rng"} <= set(re.findall(r"/virtio-backend \[(\S+)\]", result.stdout))
