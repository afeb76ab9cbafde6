"""What was unpacked is what is booted."""

from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels import sums


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "boot" / "config").write_bytes(b"y")
    sums.write(tmp_path, ["boot/vmlinuz"])
    return tmp_path


def test_file_that_is_what_it_was_is_read(tree: Path) -> None:
    assert sums.read(tree, tree / "boot" / "vmlinuz") == b"kernel"
    assert sums.intact(tree, [tree / "boot" / "vmlinuz"])


@pytest.mark.parametrize("content", [b"", b"kerneL", b"kernel\0"])
def test_file_that_was_damaged_is_named_and_what_helps(tree: Path, content: bytes) -> None:
    (tree / "boot" / "vmlinuz").write_bytes(content)
    assert not sums.intact(tree, [tree / "boot" / "vmlinuz"])
    with pytest.raises(HarnessError, match=f"boot/vmlinuz is damaged: remove {tree}, "):
        sums.read(tree, tree / "boot" / "vmlinuz")


@pytest.mark.parametrize("name", ["config", "absent"])
def test_file_without_a_sum_is_not_intact(tree: Path, name: str) -> None:
    assert not sums.intact(tree, [tree / "boot" / name])


def test_tree_without_sums_is_not_intact(tree: Path) -> None:
    (tree / sums.SUMS).unlink()
    assert not sums.intact(tree, [tree / "boot" / "vmlinuz"])
