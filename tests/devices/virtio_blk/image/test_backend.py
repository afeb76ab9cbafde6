"""Images without a guest: transfers, discard, direct I/O, ranges."""

import errno
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.devices.virtio_blk.engine.pieces import after, transfer_all
from acrn_dm.devices.virtio_blk.image import backend
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage
from acrn_dm.devices.virtio_blk.medium import open_image
from tests.devices.virtio_blk.blk_rig import config, image


def buffer(size: int, offset: int = 0) -> memoryview:
    """Writable memory at *offset* in a page."""
    return memoryview(mmap.mmap(-1, size + offset))[offset : offset + size]


def direct(path: Path, text: str = "") -> DirectImage:
    """*path* opened for nocache; skips where the file system can't."""
    try:
        opened = open_image(config(f"{path},nocache{text}"))
    except HostError as e:
        if e.err == errno.EINVAL:
            pytest.skip("no O_DIRECT on the file system of tmp_path")
        raise
    assert isinstance(opened, DirectImage)
    return opened


def test_short_transfers_are_continued() -> None:
    data = bytes(range(200))
    got = bytearray()

    def two_at_most(views: Sequence[memoryview], offset: int) -> int:
        assert offset == len(got) + 1000
        got.extend(views[0][:2])
        return min(2, len(views[0]))

    transfer_all(two_at_most, [memoryview(data)[:7], memoryview(data)[7:]], 1000)
    assert bytes(got) == data


def test_end_of_file_within_a_transfer_is_eio() -> None:
    with pytest.raises(OSError, match="ends before") as caught:
        transfer_all(lambda views, offset: 0, [memoryview(b"x")], 0)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(("skip", "left"), [(0, b"abcdef"), (1, b"bcdef"), (3, b"def"), (4, b"ef"), (6, b"")])
def test_after_skips_across_views(skip: int, left: bytes) -> None:
    assert b"".join(after([memoryview(b"abc"), memoryview(b"def")], skip)) == left


def test_more_views_than_one_system_call_takes(tmp_path: Path) -> None:
    opened = open_image(config(str(image(tmp_path, 8))))
    try:
        views = [memoryview(bytes([n % 256])) for n in range(3000)]
        opened.write(views, 100, durable=True)
        back = [buffer(1) for _ in range(3000)]
        opened.read(back, 100)
        assert b"".join(back) == b"".join(views)
    finally:
        opened.close()


@pytest.mark.parametrize("opener", [lambda p: open_image(config(str(p))), direct], ids=["buffered", "direct"])
@pytest.mark.parametrize("durable", [False, True])
def test_durable_write_waits_for_the_medium_in_the_same_call(
    tmp_path: Path, opener: Callable[[Path], Image], durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opener(image(tmp_path, 16))
    flags = []
    real = os.pwritev

    def record(fd: int, views: Sequence[memoryview], offset: int, flag: int) -> int:
        flags.append(flag)
        return real(fd, views, offset, flag)

    monkeypatch.setattr(backend.os, "pwritev", record)
    opened.write([buffer(4096)], 0, durable=durable)
    opened.close()
    assert flags == [os.RWF_DSYNC if durable else 0]


def test_cached_read_is_refused_where_the_kernel_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_image(config(str(image(tmp_path, 8))))

    def refuse(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(backend.os, "preadv", refuse)
    assert not opened.read_cached([buffer(512)], 0)
    monkeypatch.undo()
    assert not opened.read_cached([buffer(512)], 0), "it is not tried again"
    opened.close()


def test_write_zeroes_without_fallocate_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path, 4096)
    before = path.read_bytes()

    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(backend, "fallocate", refuse)
    opened = open_image(config(str(path)))
    opened.write_zeroes(512, (1 << 20) + 1024, unmap=True, durable=True)
    opened.close()
    assert path.read_bytes() == before[:512] + bytes((1 << 20) + 1024) + before[(1 << 20) + 1536 :]


def test_discard_where_the_medium_cannot_is_eopnotsupp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(backend, "fallocate", refuse)
    opened = open_image(config(f"{image(tmp_path, 8)},discard"))
    with pytest.raises(OSError, match="discard") as caught:
        opened.discard(0, 512)
    assert caught.value.errno == errno.EOPNOTSUPP
    opened.close()


@pytest.mark.parametrize("misplacement", [0, 1, 256])
@pytest.mark.parametrize(("offset", "size"), [(0, 4096), (512, 512), (3584, 1024), (8192, (1 << 20) + 4096)])
def test_direct_transfers_are_right_at_any_alignment(tmp_path: Path, offset: int, size: int, misplacement: int) -> None:
    path = image(tmp_path, 4096)
    expected = bytearray(path.read_bytes())
    opened = direct(path)
    data = os.urandom(size)
    source = buffer(size, misplacement)
    source[:] = data
    opened.write([source[:100], source[100:]], offset, durable=True)
    target = buffer(size, misplacement)
    opened.read([target[:300], target[300:]], offset)
    opened.close()
    expected[offset : offset + size] = data
    assert bytes(target) == data
    assert path.read_bytes() == bytes(expected)


def test_direct_image_whose_size_is_not_aligned_is_written_to_its_end_and_no_further(tmp_path: Path) -> None:
    path = image(tmp_path, 9)
    opened = direct(path)
    opened.write([memoryview(b"e" * 512)], 8 * 512, durable=False)
    target = buffer(512)
    opened.read([target], 8 * 512)
    opened.close()
    assert bytes(target) == b"e" * 512
    assert path.stat().st_size == 9 * 512


def test_direct_image_has_no_cached_reads(tmp_path: Path) -> None:
    opened = direct(image(tmp_path))
    assert not opened.read_cached([buffer(512)], 0)
    opened.close()


def test_range_shows_its_part_only(tmp_path: Path) -> None:
    path = image(tmp_path, 64)
    opened = open_image(config(f"{path},range=10/4"))
    target = buffer(8)
    opened.read([target], 0)
    opened.write([memoryview(b"Z" * 512)], 3 * 512, durable=True)
    assert (opened.size, bytes(target)) == (4 * 512, (10).to_bytes(8, "little"))
    opened.close()
    assert path.read_bytes()[13 * 512 : 14 * 512] == b"Z" * 512


def test_range_counts_in_logical_blocks(tmp_path: Path) -> None:
    opened = open_image(config(f"{image(tmp_path, 64)},sectorsize=4096,range=1/2"))
    assert (opened.start, opened.size) == (4096, 8192)
    opened.close()


def test_range_behind_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="range 60/5 ends behind image"):
        open_image(config(f"{image(tmp_path, 64)},range=60/5"))


@pytest.mark.parametrize("text", ["", ",nocache"])
def test_overlapping_ranges_exclude_each_other(tmp_path: Path, text: str) -> None:
    path = image(tmp_path, 64)
    first = open_image(config(f"{path},range=0/32"))
    with pytest.raises(ConfigError, match="is in use by this process"):
        open_image(config(f"{path},range=31/4{text}"))
    second = open_image(config(f"{path},range=32/32"))
    second.close()
    first.close()
    third = open_image(config(f"{path},range=31/4"))
    third.close()


def test_read_only_ranges_may_overlap(tmp_path: Path) -> None:
    path = image(tmp_path, 64)
    opened: list[Image] = [open_image(config(f"{path},ro,range=0/32")) for _ in range(2)]
    for one in opened:
        one.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anything")
def test_image_without_write_permission_is_refused_unless_ro(tmp_path: Path) -> None:
    path = image(tmp_path, 8)
    path.chmod(0o400)
    with pytest.raises(ConfigError, match="ro"):
        open_image(config(str(path)))
    open_image(config(f"{path},ro")).close()


def test_failed_opening_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(700))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError):
        open_image(config(str(path)))
    assert len(os.listdir("/proc/self/fd")) == before
