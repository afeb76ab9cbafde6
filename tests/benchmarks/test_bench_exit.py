"""benchmarks.bench_exit: the guest that both sides run, and what is said of one that says nothing."""

import sys
from pathlib import Path

import pytest

from acrn_dm.boot import elf, multiboot
from acrn_dm.boot.files import ImageFile
from benchmarks.bench_exit import READ_PORT, Job, cycles, guest
from benchmarks.rows import PeerMissing


@pytest.fixture
def image(tmp_path: Path) -> ImageFile:
    try:
        path = guest(Job(name="", kind=READ_PORT, address=0x2012, common=0x8000_0000), 500, tmp_path)
    except PeerMissing as e:
        pytest.skip(str(e))
    return ImageFile(option="-E", path=path, data=path.read_bytes())


def test_guest_is_a_multiboot_image(image: ImageFile) -> None:
    assert multiboot.header_flags(image) == 0
    assert elf.parse(image).bits == 32


def test_guest_is_told_what_to_do(image: ImageFile) -> None:
    job = image.data.index(b"BENCHJOB") + 8
    words = [int.from_bytes(image.data[at : at + 4], "little") for at in range(job, job + 16, 4)]
    assert words == [READ_PORT, 0x2012, 500, 0x8000_0000]


def test_figure_is_the_line_of_the_guest() -> None:
    assert cycles([sys.executable, "-c", "print('0' * 15 + 'f')"]) == 15


def test_guest_that_says_nothing_is_an_error_with_the_reason() -> None:
    with pytest.raises(RuntimeError, match="no guest"):
        cycles([sys.executable, "-c", "raise SystemExit('no guest')"])
