"""Nothing acknowledged is forgotten: flushes that failed, and images cut short while they are in use."""

import errno
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.image import trust
from acrn_dm.devices.virtio_blk.image.backend import Image, Views
from acrn_dm.devices.virtio_blk.image.trust import LostError
from acrn_dm.devices.virtio_blk.medium import open_image
from acrn_dm.testing import Completion
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    IN,
    IOERR,
    OK,
    OUT,
    WRITE_ZEROES,
    WRITEBACK_AT,
    Disk,
    config,
    disk,
    header,
    image,
    segment,
)


class Medium:
    """fdatasync as of a kernel that tells each failure once. ``errors`` are those of the next calls, then it works."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, fd: int) -> None:
        self.calls += 1
        if self.errors and (err := self.errors.pop(0)):
            raise OSError(err, os.strerror(err))


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Medium]:
    """Gives fdatasync the errors that are said."""

    def install(*errors: int) -> Medium:
        medium = Medium(*errors)
        monkeypatch.setattr(trust.os, "fdatasync", medium)
        return medium

    return install


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Image]:
    """An image of 64 sectors."""
    opened = open_image(config(str(image(tmp_path, 64))))
    yield opened
    opened.close()


def status(done: Completion) -> int:
    return done.data[-1]


def requests(d: Disk, queue: int, kind: int, data: bytes = b"") -> int:
    """One request on that *queue*; its status."""
    out = [header(kind), data] if data else [header(kind)]
    return status(d.driver.queue(queue).transfer(out, [1]))


@pytest.mark.parametrize("err", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_after_a_failed_flush_every_later_one_fails(tmp_path: Path, fails: Callable[..., Medium], err: int) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        assert d.write(3, b"x" * 512) == OK
        fails(err)
        assert [requests(d, 0, FLUSH) for _ in range(3)] == [IOERR, IOERR, IOERR]
        assert d.write(4, b"y" * 512) == OK, "which promises nothing in this mode"


def test_failed_flush_counts_for_all_queues_of_the_image(tmp_path: Path, fails: Callable[..., Medium]) -> None:
    with disk(f"mq=2,{image(tmp_path)},writeback", vcpus=2) as d:
        fails(errno.EIO)
        assert [requests(d, queue, FLUSH) for queue in (0, 1, 1)] == [IOERR, IOERR, IOERR]


def test_failed_flush_is_remembered_over_a_reset_of_the_device(tmp_path: Path, fails: Callable[..., Medium]) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        fails(errno.EIO)
        requests(d, 0, FLUSH)
        d.driver.start()
        assert requests(d, 0, FLUSH) == IOERR


def test_failed_flush_fails_writes_that_promise_to_be_on_the_medium(
    tmp_path: Path, fails: Callable[..., Medium]
) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        d.write(0, bytes(512))
        fails(errno.EIO)
        requests(d, 0, FLUSH)
        d.driver.registers.write_config(WRITEBACK_AT, 1, 0)
        assert d.write(0, bytes(512)) == IOERR
        assert requests(d, 0, WRITE_ZEROES, segment(1, 1)) == IOERR


def test_image_that_is_opened_anew_flushes_again(tmp_path: Path, fails: Callable[..., Medium]) -> None:
    path = image(tmp_path)
    fails(errno.EIO)
    for expected in (IOERR, OK):
        with disk(f"{path},writeback") as d:
            assert requests(d, 0, FLUSH) == expected


def test_medium_that_is_inserted_knows_of_no_failure(tmp_path: Path, fails: Callable[..., Medium]) -> None:
    with disk("nodisk") as d:
        fails(errno.EIO)
        d.device.insert_medium(str(image(tmp_path)))
        assert [requests(d, 0, FLUSH) for _ in range(2)] == [IOERR, IOERR]
    with disk("nodisk") as d:
        d.device.insert_medium(str(tmp_path / "disk.img"))
        assert requests(d, 0, FLUSH) == OK


def test_close_says_that_what_was_lost_is_lost(
    tmp_path: Path, fails: Callable[..., Medium], caplog: pytest.LogCaptureFixture
) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        d.write(0, bytes(512))
        fails(errno.EIO)
        requests(d, 0, FLUSH)
        caplog.clear()
    assert "an earlier flush failed" in caplog.text


def test_flushes_at_the_same_time_both_hear_of_a_failure_that_the_kernel_tells_once(
    opened: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, second = threading.Event(), threading.Event()
    results: list[str] = []

    def fdatasync(fd: int) -> None:
        if inside.is_set():
            second.set()
            return
        inside.set()
        second.wait(0.2)  # long enough for who does not wait for us to come through
        raise OSError(errno.EIO, "told once")

    def flush() -> None:
        try:
            opened.flush()
            results.append("ok")
        except OSError as e:
            results.append(type(e).__name__)

    monkeypatch.setattr(trust.os, "fdatasync", fdatasync)
    threads = [threading.Thread(target=flush) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert results == ["OSError", "LostError"]


def test_durable_write_that_fails_while_others_wait_for_a_flush_fails_that_flush(
    opened: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells a write-back error once; here a write on its way when the mode changes gets it."""
    real = os.pwritev

    def pwritev(fd: int, views: object, offset: int, flags: int) -> int:
        if not flags:
            return real(fd, views, offset, flags)  # type: ignore[arg-type]
        opened.write([memoryview(b"v" * 512)], 512, durable=False)
        raise OSError(errno.EIO, "told once")

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(OSError, match="told once"):
        opened.write([memoryview(b"d" * 512)], 0, durable=True)
    with pytest.raises(LostError):
        opened.flush()


@pytest.mark.parametrize("err", [errno.ENOSPC, errno.EDQUOT, errno.ECANCELED])
def test_durable_write_that_found_no_room_says_nothing_about_others(
    opened: Image, monkeypatch: pytest.MonkeyPatch, err: int
) -> None:
    real = os.pwritev

    def pwritev(fd: int, views: object, offset: int, flags: int) -> int:
        if not flags:
            return real(fd, views, offset, flags)  # type: ignore[arg-type]
        opened.write([memoryview(b"v" * 512)], 512, durable=False)
        raise OSError(err, "nothing was written")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", pwritev)
        with pytest.raises(OSError, match="nothing was written"):
            opened.write([memoryview(b"d" * 512)], 0, durable=True)
    opened.flush()
    opened.write([memoryview(b"d" * 512)], 0, durable=True)


def test_durable_write_that_fails_alone_is_a_failed_write_and_no_more(
    opened: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwritev(*args: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", pwritev)
        with pytest.raises(OSError, match="full"):
            opened.write([memoryview(b"d" * 512)], 0, durable=True)
    opened.flush()
    opened.write([memoryview(b"d" * 512)], 0, durable=True)


def test_durable_write_behind_others_that_wait_for_a_flush_flushes_them(
    opened: Image, fails: Callable[..., Medium]
) -> None:
    medium = fails()
    opened.write([memoryview(b"v" * 512)], 512, durable=False)
    opened.write([memoryview(b"d" * 512)], 0, durable=True)
    opened.write([memoryview(b"d" * 512)], 0, durable=True)
    assert medium.calls == 1, "the second has nothing to wait for but itself"


@pytest.mark.process
def test_flush_on_a_full_host_disk_fails_for_good(full_disk: Path) -> None:
    """K2.1 with the real thing: writes that the page cache took and the medium can't hold."""
    with disk(f"{full_disk},writeback") as d:
        assert [d.write(2048 + 8 * n, os.urandom(4096)) for n in range(512)] == [OK] * 512
        assert [requests(d, 0, FLUSH) for _ in range(3)] == [IOERR, IOERR, IOERR]


@pytest.mark.process
def test_block_device_that_shrinks_is_cut_too(full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(f"{full_disk}") as d:

        def lseek(fd: int, offset: int, whence: int) -> int:
            raise AssertionError("of a block device it waits for a discard under way, and reads would with it")

        monkeypatch.setattr(os, "lseek", lseek)
        assert status(d.request(IN, 8, room=512)) == OK
        os.truncate(tmp_path / "small" / "disk", 4 << 20)
        subprocess.run(["losetup", "-c", str(full_disk)], check=True)
        assert [attempt(d, kind, 8) for kind in (IN, OUT, WRITE_ZEROES)] == [IOERR] * 3


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A loop device of 8 MiB whose file lies on a tmpfs of 1 MiB."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("needs root and losetup")
    mount = tmp_path / "small"
    mount.mkdir()

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(words, capture_output=True, text=True, check=False)

    if run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with (mount / "disk").open("wb") as file:
            file.truncate(8 << 20)
        loop = run("losetup", "-f", "--show", str(mount / "disk"))
        if loop.returncode:
            pytest.skip(f"no loop device: {loop.stderr.strip()}")
        yield Path(loop.stdout.strip())
        run("losetup", "-d", loop.stdout.strip())
    finally:
        run("umount", "-l", str(mount))


# Images that are cut


def attempt(d: Disk, kind: int, sector: int) -> int:
    """One request of one sector; its status."""
    if kind == IN:
        return status(d.request(IN, sector, room=512))
    return status(d.request(kind, sector, b"w" * 512 if kind == OUT else segment(sector, 1)))


@pytest.mark.parametrize("text", ["", ",writeback", ",nocache"])
@pytest.mark.parametrize("kind", [IN, OUT, DISCARD, WRITE_ZEROES])
@pytest.mark.parametrize("sector", [100, 2047])
def test_request_behind_the_cut_is_an_error_and_leaves_the_file_as_it_is(
    tmp_path: Path, text: str, kind: int, sector: int
) -> None:
    path = image(tmp_path)
    with disk(f"{path},discard{text}") as d:
        os.truncate(path, 100 * 512)
        assert attempt(d, kind, sector) == IOERR
        assert path.stat().st_size == 100 * 512


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
def test_cut_that_a_later_write_fills_never_reads_as_zeroes(tmp_path: Path, cached: bool) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        assert d.device.image is not None
        d.device.image._cached_reads = cached
        os.truncate(path, 512)
        assert d.write(2047, b"end" + bytes(509)) == IOERR
        assert attempt(d, IN, 1000) == IOERR
        os.truncate(path, 2048 * 512)  # by somebody else: grown again, but what it held is gone
        assert attempt(d, IN, 1000) == IOERR
        assert attempt(d, OUT, 1000) == IOERR


def test_cut_while_a_write_is_under_way_is_noticed(
    opened: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Image._write

    def write(self: Image, views: Views, offset: int, *, durable: bool) -> None:
        os.truncate(tmp_path / "disk.img", 512)
        real(self, views, offset, durable=durable)

    monkeypatch.setattr(Image, "_write", write)
    opened.write([memoryview(b"w" * 512)], 30 * 512, durable=False)
    with pytest.raises(LostError):
        opened.read([memoryview(bytearray(512))], 20 * 512)


def test_flush_of_an_image_that_was_cut_fails(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(f"{path},writeback") as d:
        d.write(2000, b"w" * 512)
        os.truncate(path, 512)
        assert status(d.request(FLUSH)) == IOERR


def test_nothing_is_trusted_of_an_image_that_was_cut(tmp_path: Path) -> None:
    """Where the cut was can't be told: a write on its way may have filled the gap before it was noticed."""
    path = image(tmp_path)
    with disk(str(path)) as d:
        os.truncate(path, 100 * 512)
        assert [attempt(d, kind, 3) for kind in (IN, OUT, WRITE_ZEROES)] == [IOERR] * 3


def test_cut_behind_the_visible_part_does_not_matter(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(f"{path},range=0/64") as d:
        os.truncate(path, 64 * 512)
        assert d.read(63)[:8] == struct.pack("<Q", 63)
        assert status(d.request(FLUSH)) == OK


def test_image_that_grows_is_the_same_disk(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        os.truncate(path, 4096 * 512)
        assert d.write(2047, b"w" * 512) == OK
        assert d.read(2047) == b"w" * 512


def test_cut_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        os.truncate(path, 512)
        for _ in range(5):
            attempt(d, IN, 1000)
    assert caplog.text.count("was cut from 1048576 to 512 bytes") == 1
