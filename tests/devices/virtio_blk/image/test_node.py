"""Block devices as a scripted sysfs describes them."""

import os
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.image.node import BlockNode, block_node, can_erase, node_of

EMMC = {"device/life_time": "0x02 0x0b\n", "device/pre_eol_info": "0x01\n"}


def disk(root: Path, files: dict[str, str], number: str = "179:0") -> Path:
    """A disk in the sysfs at *root*, with *files* in its folder."""
    folder = root / "devices/mmc0/block/mmcblk0"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (root / "dev/block").mkdir(parents=True, exist_ok=True)
    (root / "dev/block" / number).symlink_to(folder)
    return folder


def test_lifetime_is_that_of_the_emmc(tmp_path: Path) -> None:
    disk(tmp_path, EMMC)
    assert block_node(os.makedev(179, 0), tmp_path).lifetime == bytes([1, 0, 2, 0, 11, 0])


def test_partition_is_as_worn_as_its_disk(tmp_path: Path) -> None:
    folder = disk(tmp_path, EMMC | {"queue/zoned": "host-managed\n"})
    (folder / "mmcblk0p1").mkdir()
    (folder / "mmcblk0p1/partition").write_text("1\n")
    (tmp_path / "dev/block/179:1").symlink_to(folder / "mmcblk0p1")
    found = block_node(os.makedev(179, 1), tmp_path)
    assert (found.lifetime, found.zoned) == (bytes([1, 0, 2, 0, 11, 0]), "host-managed")


@pytest.mark.parametrize(
    ("worn", "end", "told"),
    [
        ("0x00 0x0c", "0x04", None),
        ("0x0c 0x01", "0x04", bytes([0, 0, 0, 0, 1, 0])),
        ("0x00 0x00", "0x00", None),
        ("0x01", "0x01", None),
        ("much less", "0x01", None),
        ("-0x1 0x01", "0x03", bytes([3, 0, 0, 0, 1, 0])),
    ],
)
def test_what_is_reserved_or_says_nothing_is_not_told(tmp_path: Path, worn: str, end: str, told: bytes | None) -> None:
    disk(tmp_path, {"device/life_time": worn, "device/pre_eol_info": end})
    assert block_node(os.makedev(179, 0), tmp_path).lifetime == told


def test_disk_without_these_files_is_not_zoned_and_tells_nothing(tmp_path: Path) -> None:
    assert (BlockNode(tmp_path).zoned, BlockNode(tmp_path).lifetime) == ("none", None)


def test_file_is_no_block_device_and_erases_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"kept" * 1024)
    with path.open("r+b") as file:
        assert (node_of(file.fileno()), can_erase(file.fileno())) == (None, False)
    assert path.read_bytes() == b"kept" * 1024
