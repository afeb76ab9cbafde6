"""Containers given as raw images are told of."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.image import containers
from acrn_dm.devices.virtio_blk.image.containers import FORMATS
from tests.devices.virtio_blk.blk_rig import config, disk
from tests.devices.virtio_blk.test_insert import insert

SIZE = 4096


def write(path: Path, magic: bytes, offset: int = 0) -> Path:
    path.write_bytes(bytes(offset) + magic + bytes(SIZE - offset - len(magic)))
    return path


@pytest.mark.parametrize("expected", FORMATS, ids=lambda f: f"{f.text} {f.magic[:4]!r}")
def test_format_is_known_by_its_signature(tmp_path: Path, expected: containers.Format) -> None:
    assert containers.look(write(tmp_path / "x", expected.magic, expected.offset)) is expected
    assert containers.look(write(tmp_path / "y", expected.magic[:-1] + b"?", expected.offset)) is None


@pytest.mark.process
@pytest.mark.parametrize("name", ["qcow2", "qed", "vmdk", "vhdx", "vpc", "vdi", "parallels"])
def test_what_qemu_makes_is_known(tmp_path: Path, name: str) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img (Debian package qemu-utils)")
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", name, path, "1M"], check=True)
    found = containers.look(path)
    assert found is not None
    assert found.name == name


def test_raw_image_and_empty_file_are_nothing_odd(tmp_path: Path) -> None:
    assert containers.remark(write(tmp_path / "raw", b"\xeb\x63\x90")) is None
    (tmp_path / "empty").touch()
    assert containers.remark(tmp_path / "empty") is None


def test_remark_says_what_it_looks_like_and_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.qcow2", b"QFI\xfb")
    assert medium.remarks(config(str(path))) == [
        f"image {path} looks like qcow2 and is used as raw: the guest sees the container; make a raw one "
        f"(qemu-img convert -f qcow2 -O raw {path} NEW), or let qemu-storage-daemon read it (vhost-user=SOCKET)"
    ]


def test_compressed_image_is_to_be_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.img.xz", b"\xfd7zXZ\0")
    assert medium.remarks(config(f"{path},nocache")) == [
        f"image {path} looks like xz and is used as raw: the guest sees the container; unpack it first"
    ]


def test_container_of_an_odd_size_is_not_to_be_extended(tmp_path: Path) -> None:
    path = write(tmp_path / "a.img.gz", b"\x1f\x8b\x08")
    with path.open("ab") as f:
        f.write(b"x")
    assert medium.problem(config(str(path))) == (
        f"image {path} has 4097 bytes, which is not a multiple of 512; it looks like gzip: unpack it first"
    )


def test_sector_of_a_container_stays_raw(tmp_path: Path) -> None:
    with disk(str(write(tmp_path / "x", b"QFI\xfb"))) as d:
        assert d.read(0)[:4] == b"QFI\xfb"


def test_inserted_container_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "x", b"KDMV")
    with disk("nodisk") as d:
        insert(d, str(path))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [w.partition(";")[0] for w in warnings] == [
        f"virtio-blk-3:0: image {path} looks like VMDK and is used as raw: the guest sees the container"
    ]


def test_part_of_an_image_is_not_guessed_about(tmp_path: Path) -> None:
    assert medium.remarks(config(f"{write(tmp_path / 'x', b'KDMV')},range=1/2")) == []
