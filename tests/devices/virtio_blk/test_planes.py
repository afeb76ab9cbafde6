"""Queues of a disk that are served without Python: by which engine, and what comes back to Python from them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.native.engines import choice
from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.native.engines._pool import PoolEngine
from acrn_dm.devices.virtio_blk.native.engines._uring import UringEngine
from tests.devices.virtio_blk.blk_rig import DISCARD, FLUSH, IOERR, OK, WRITEBACK_AT, Disk, disk, image, segment
from tests.devices.virtio_blk.native.service_rig import engines
from tests.devices.virtio_blk.native.test_service import file_size_limit

pytestmark = pytest.mark.both_formats


def engines_of(d: Disk) -> list[type[BlkEngine]]:
    return [type(served.plane.service.engine) for served in d.device._planes._served]  # type: ignore[misc]


@pytest.fixture(params=engines())
def native(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with disk(f"mq=2,{image(tmp_path)},writeback,discard,aio={request.param}", vcpus=2) as d:
        yield d


@pytest.mark.skipif("io_uring" not in engines(), reason="no io_uring here")
@pytest.mark.parametrize(("aio", "expected"), [("io_uring", [UringEngine]), ("threads", [PoolEngine]), ("auto", [])])
def test_engine_is_the_one_that_aio_says(tmp_path: Path, aio: str, expected: list[type[BlkEngine]]) -> None:
    with disk(f"{image(tmp_path)},aio={aio}") as d:
        assert engines_of(d) == expected


def test_io_uring_that_is_not_there_is_served_by_threads_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(fd: int, depth: int) -> BlkEngine:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(choice, "UringEngine", forbidden)
    with disk(f"{image(tmp_path)},aio=io_uring") as d:
        assert (engines_of(d), d.write(0, bytes(512))) == ([PoolEngine], OK)
    assert "io_uring is served by threads: Operation not permitted" in caplog.text


def test_what_is_discarded_reads_as_zeroes(native: Disk) -> None:
    assert native.request(DISCARD, 0, segment(8, 8)).data[-1] == OK
    assert native.read(8) == bytes(512)


def test_failure_of_the_host_is_answered_and_counted_as_ever(native: Disk, caplog: pytest.LogCaptureFixture) -> None:
    with file_size_limit(4096):
        assert native.write(16, b"x" * 512) == IOERR
    assert native.device.errors == 1
    assert "WRITE at" in caplog.text


def test_flushes_of_two_queues_are_all_answered(native: Disk) -> None:
    first, second = native.driver.queue(0), native.driver.queue(1)
    for _ in range(8):
        for queue in (first, second):
            queue.send([FLUSH.to_bytes(16, "little")], [1])
            queue.kick()
    native.machine.settle()
    assert [done.data for queue in (first, second) for done in queue.completed()] == [bytes([OK])] * 16


def test_mode_that_the_driver_chooses_holds_for_the_next_write(native: Disk) -> None:
    native.write(0, bytes(512))
    native.request(FLUSH)
    native.driver.registers.write_config(WRITEBACK_AT, 1, 0)
    native.write(0, bytes(512))
    assert not native.device.image.trust.volatile  # type: ignore[union-attr]


def test_reset_leaves_nothing_behind_and_the_next_driver_is_served(native: Disk) -> None:
    for sector in range(40):
        native.queue.send([(1).to_bytes(8, "little") + sector.to_bytes(8, "little"), bytes(512)], [1])
    native.queue.kick()
    native.driver.start()
    native.machine.settle()
    assert native.write(3, b"n" * 512) == OK
    assert not native.device.busy
