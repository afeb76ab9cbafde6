"""Archives as the kernel reads them, checked with the cpio program."""

import shutil
import subprocess
from pathlib import Path

import pytest

from acrn_dm.testing.guest.images import cpio

pytestmark = pytest.mark.skipif(shutil.which("cpio") is None, reason="the cpio program is not installed")


def listing(entries: list[cpio.Entry]) -> list[str]:
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=cpio.archive(entries), capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_archive_of_each_kind_has_type_mode_and_name() -> None:
    file, link = listing([cpio.file("a", b"odd", 0o755), cpio.symlink("b", "target")])
    assert file.startswith("-rwxr-xr-x")
    assert file.endswith(" a")
    assert link.endswith("b -> target")


def test_archive_of_a_deep_file_has_its_parents_first() -> None:
    assert [line.split()[-1] for line in listing([cpio.file("x/y/z", b"")])] == ["x", "x/y", "x/y/z"]


def test_archive_content_survives_any_length(tmp_path: Path) -> None:
    entries = [cpio.file(f"f{length}", bytes(range(length))) for length in range(9)]
    subprocess.run(["cpio", "-i", "--quiet"], input=cpio.archive(entries), cwd=tmp_path, check=True)
    assert [(tmp_path / entry.path).read_bytes() for entry in entries] == [entry.content for entry in entries]
