"""fio on an exported disk, by nbdkit's plugin of libblkio: the lines of the page. How long: ``BLKIO_S`` seconds.

nbdkit (1.42, Debian 13's) asks for a newer C library than the host may have, so it is started as the newer QEMU is.
It hands on one request at a time; ``test_disk`` has many under way.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.packages import suite_package
from acrn_dm.testing.guest.served.newer import LIBRARIES, LOADER, SUITE, newer_qemu
from tests.docs.page_runner import ROOT, lines_for
from tests.lab.peers.exports import export, started
from tests.lab.peers.libblkio.blkio import PACKAGE
from tests.lab.peers.libblkio.test_disk import SECONDS
from tests.patience import comes_true

pytestmark = pytest.mark.process

PAGE = ROOT / "docs" / "how-to" / "exporting" / "libblkio.md"
PLUGIN = "nbdkit/plugins/nbdkit-blkio-plugin.so"
SIZE = 2 << 20


@pytest.fixture(scope="module")
def nbdkit() -> list[str]:
    """The words that start it with the plugin, before its options."""
    try:
        newer = newer_qemu().tree
        trees = [newer, suite_package(SUITE, PACKAGE), suite_package(SUITE, "nbdkit")]
    except HarnessUnavailable as error:
        pytest.skip(str(error))
    path = ":".join(str(tree / LIBRARIES) for tree in trees)
    return [str(newer / LOADER), "--library-path", path, str(trees[-1] / "usr/bin/nbdkit")]


@pytest.fixture
def lines(nbdkit: list[str], tmp_path: Path) -> tuple[str, list[str], list[str]]:
    """Our device, what starts nbdkit, and fio's words, from the page."""
    ours, theirs, fio = (
        line.replace("/run/", f"{tmp_path}/").replace("./disk.img", str(tmp_path / "disk.img"))
        for line in lines_for(PAGE.read_text(), "tests/lab/peers/libblkio/test_nbdkit.py")
    )
    first, *words = shlex.split(theirs.rstrip("& "))
    assert first == "nbdkit"
    plugin = str(Path(nbdkit[-1]).parents[2] / LIBRARIES / PLUGIN)
    words[words.index("blkio")] = plugin
    return shlex.split(ours)[2], [*nbdkit, *words], shlex.split(fio)


@contextmanager
def serving(argv: list[str], socket: Path) -> Iterator[None]:
    process = subprocess.Popen(argv)
    try:
        assert comes_true(socket.exists, 30)
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_lines_of_the_page_find_what_they_wrote(lines: tuple[str, list[str], list[str]], tmp_path: Path) -> None:
    device, nbdkit, fio = lines
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(SIZE))
    with started([export(tmp_path, "disk", device)]), serving(nbdkit, tmp_path / "nbd.sock"):
        limit = [f"--size={SIZE}", "--time_based", f"--runtime={SECONDS:g}", "--do_verify=1"]
        done = subprocess.run(
            [*fio, *limit], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS + 60
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "err= 0" in done.stdout
    (written,) = re.findall(r"issued rwts: total=\d+,(\d+)", done.stdout)
    assert int(written) > 0
    assert any(image.read_bytes())
