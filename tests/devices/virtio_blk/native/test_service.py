"""The native executor over each engine: what is asked is done, and what is not for it is handed on, parsed."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.base.errors import GuestError
from acrn_dm.devices.virtio_blk.native import _service
from acrn_dm.devices.virtio_blk.request import Op
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    SCSI,
    UNSUPP,
    image,
)
from tests.devices.virtio_blk.native.service_rig import SERIAL, SIZE, drop_cache, engines, make_engine, served
from tests.patience import comes_true

SECTORS = 256


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return image(tmp_path, SECTORS)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes behind *size* fail with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("cached", [True, False])
def test_read_has_the_bytes_of_the_image(engine: str, path: Path, cached: bool) -> None:
    with served(path, engine) as s:
        if not cached:
            drop_cache(s.image)
        written, data = s.one(IN, 7, room=1024)
        assert (written, data) == (1025, path.read_bytes()[7 * 512 : 9 * 512] + bytes([OK]))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_write_is_in_the_image_when_it_is_answered(engine: str, path: Path, durable: bool, in_memory: bool) -> None:
    with served(path, engine, durable=durable, in_memory=in_memory) as s:
        assert s.one(OUT, 9, b"w" * 1024) == (1, bytes([OK]))
        assert path.read_bytes()[9 * 512 :][:1026] == b"w" * 1024 + path.read_bytes()[11 * 512 :][:2]
        assert s.image.trust.volatile == (not durable)


def test_every_request_of_a_deep_batch_is_answered_with_its_own_data(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        for n in range(SIZE // 3):
            s.send(IN, 3 * n, room=512)
        disk = path.read_bytes()
        answers = {data for _, data in s.finish()}
        assert answers == {disk[3 * n * 512 :][:512] + bytes([OK]) for n in range(SIZE // 3)}


def test_flush_makes_what_was_written_durable(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        s.one(OUT, 1, bytes(512))
        assert s.one(FLUSH) == (1, bytes([OK]))
        assert not s.image.trust.volatile


def test_flush_does_not_count_what_is_written_while_it_is_under_way(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        before = s.image.trust.standing.begin_sync()  # another queue's
        s.one(OUT, 1, bytes(512))
        s.image.trust.standing.end_sync(before, 0)
        assert s.image.trust.volatile


def test_flushes_of_one_batch_are_all_answered(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        for _ in range(5):
            s.send(FLUSH)
        assert s.finish() == [(1, bytes([OK]))] * 5


def test_flush_beside_another_queues_waits_in_the_python_path(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        before = s.image.trust.standing.begin_sync()
        s.send(FLUSH)
        assert (s.finish(), s.handed[0][0].op, s.handed[0][1]) == ([], Op.FLUSH, 0)
        s.image.trust.standing.end_sync(before, 0)


def test_failed_flush_is_known_to_everybody_and_handed_over_with_its_errno(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        reading, writing = os.pipe()
        kept = os.dup(s.image.fd)
        os.dup2(writing, s.image.fd)  # where fdatasync fails
        s.service.adopt(make_engine(engine, writing), s.image, alignment=0, in_memory=False)
        s.send(FLUSH)
        assert (s.finish(), s.handed[0][1]) == ([], errno.EINVAL)
        os.dup2(kept, s.image.fd)
        assert s.image.trust.standing.lost == errno.EINVAL
        for fd in (reading, writing, kept):
            os.close(fd)


@pytest.mark.parametrize("kind", [OUT, FLUSH])
def test_after_a_failed_flush_promises_are_left_to_who_has_words_for_it(engine: str, path: Path, kind: int) -> None:
    with served(path, engine, durable=True) as s:
        standing = s.image.trust.standing
        standing.end_sync(standing.begin_sync(), errno.EIO)
        s.send(kind, 0, bytes(512) if kind == OUT else b"")
        assert (s.finish(), s.handed[0][1]) == ([], 0)


def test_failed_write_is_handed_over_with_its_errno_and_nothing_is_left_open(engine: str, path: Path) -> None:
    with served(path, engine) as s, file_size_limit(4096):
        s.send(OUT, 16, b"x" * 512)
        assert (s.finish(), s.handed[0][1]) == ([], errno.EFBIG)
        assert s.one(OUT, 0, b"y" * 512) == (1, bytes([OK]))


def test_write_that_fails_after_its_beginning_is_handed_over_whole(engine: str, path: Path) -> None:
    with served(path, engine) as s, file_size_limit(4096 + 512):
        s.send(OUT, 8, b"x" * 1024)
        assert s.finish() == []
        assert s.handed[0][0].extents[0].length == 1024


@pytest.mark.parametrize("kind", [IN, OUT])
def test_image_that_was_cut_is_left_to_who_has_words_for_it(engine: str, path: Path, kind: int) -> None:
    with served(path, engine) as s:
        os.truncate(path, 20 * 512)
        s.send(kind, 1, *((b"", 512) if kind == IN else (bytes(512), 0)))
        assert (s.finish(), s.handed[0][1], s.image.trust.standing.cut) == ([], 0, True)
        assert path.stat().st_size == 20 * 512


def test_get_id_is_the_serial_number_cut_to_the_room(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        assert s.one(GET_ID, room=20) == (21, SERIAL.ljust(20, b"\0") + bytes([OK]))
        assert s.one(GET_ID, room=4) == (5, SERIAL[:4] + bytes([OK]))
        assert s.one(GET_ID, room=32) == (20, SERIAL.ljust(20, b"\0") + b"\xa5" * 12 + bytes([OK]))


@pytest.mark.parametrize(("kind", "sector", "status"), [(IN, SECTORS, IOERR), (SCSI, 0, UNSUPP), (DISCARD, 0, UNSUPP)])
def test_what_must_not_be_executed_is_answered(engine: str, path: Path, kind: int, sector: int, status: int) -> None:
    with served(path, engine) as s:
        assert s.one(kind, sector, room=512)[1][-1] == status


def test_request_without_room_for_a_status_is_the_drivers_fault(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        s.rig.offer([(0x8000, 16)], [])
        with pytest.raises(GuestError, match="status byte"):
            s.finish()


def test_legacy_driver_has_its_transfers_bounced_and_its_cached_reads_at_once(engine: str, path: Path) -> None:
    with served(path, engine, legacy=True) as s:
        assert s.one(IN, 1, room=512)[1][-1] == OK
        s.send(OUT, 1, bytes(512))
        assert (s.finish(), s.handed[0][0].op) == ([], Op.WRITE)


def test_cached_read_needs_no_engine(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        s.one(IN, 1, room=512)
        assert s.service.shortcut is not None
        assert (s.service.shortcut.taken, s.service.engine is not None and s.service.engine.in_flight) == (1, 0)


def test_requests_that_were_given_up_are_not_answered(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        drop_cache(s.image)
        for n in range(4):
            s.send(OUT, 8 * n, bytes(4096))
        s.service.take(s.rig.ring)
        s.service.cancel()
        assert comes_true(lambda: not s.service.busy)
        s.rig.ring.publish()
        assert s.rig.driver.used() == []


def test_memory_stays_while_a_service_has_it(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        s.rig.ring.close()
        with pytest.raises(BufferError):
            s.rig.memory.close()


def test_nothing_is_left_behind_as_stuck() -> None:
    assert _service.STUCK == []
