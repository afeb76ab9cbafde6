"""Reads and writes that need no engine: of what the page cache holds, and of files in memory, which are mapped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.virtio_blk.blk_rig import IN, OK, OUT
from tests.devices.virtio_blk.native.service_rig import Served, drop_cache, served

CHUNK = 2 << 20
SIZE = 2 * CHUNK + 4096


@pytest.fixture
def memory() -> Iterator[Path]:
    """A file in memory, all of it written."""
    fd = os.memfd_create("disk")
    os.write(fd, bytes(range(256)) * (SIZE // 256))
    yield Path(f"/proc/self/fd/{fd}")
    os.close(fd)


def took(s: Served) -> int:
    assert s.service.shortcut is not None
    return s.service.shortcut.taken


def blocks(path: Path) -> int:
    return path.stat().st_blocks


@pytest.mark.parametrize("offset", [0, 512, CHUNK - 512, CHUNK, SIZE - 1024])
def test_mapped_file_is_read_as_it_is(memory: Path, offset: int) -> None:
    with served(memory, "threads", in_memory=True) as s:
        os.pwrite(s.image.fd, os.urandom(1024), offset)
        _, data = s.one(IN, offset // 512, room=1024)
        assert data == os.pread(s.image.fd, 1024, offset) + bytes([OK])
        assert (took(s), s.service.shortcut is not None and s.service.shortcut.mapped) == (1, True)


def test_hole_of_a_mapped_file_is_read_and_stays_one(memory: Path) -> None:
    os.truncate(memory, 2 * CHUNK)
    os.truncate(memory, 3 * CHUNK)
    before = blocks(memory)
    with served(memory, "threads", in_memory=True) as s:
        for n in range(8):
            assert s.one(IN, 2 * CHUNK // 512 + 8 * n, room=4096)[1] == bytes(4096) + bytes([OK])
        assert (blocks(memory), took(s)) == (before, 8)


def test_what_was_discarded_is_not_filled_by_reading_it(memory: Path) -> None:
    with served(memory, "threads", in_memory=True) as s:
        s.one(IN, 0, room=512)
        s.image.discard(0, CHUNK)
        before = blocks(memory)
        assert s.one(IN, 8, room=4096)[1] == bytes(4096) + bytes([OK])
        assert blocks(memory) == before


def test_zeroes_that_made_a_hole_are_not_filled_by_reading_them(memory: Path) -> None:
    with served(memory, "threads", in_memory=True) as s:
        s.one(IN, 0, room=512)
        s.image.write_zeroes(0, CHUNK, unmap=True, durable=False)
        before = blocks(memory)
        assert s.one(IN, 8, room=4096)[1] == bytes(4096) + bytes([OK])
        assert blocks(memory) == before


def test_chunk_that_is_filled_later_is_mapped_then(memory: Path) -> None:
    os.truncate(memory, 2 * CHUNK)
    os.truncate(memory, 3 * CHUNK)
    with served(memory, "threads", in_memory=True) as s:
        s.one(IN, 2 * CHUNK // 512, room=512)
        os.pwrite(s.image.fd, b"x" * CHUNK, 2 * CHUNK)
        for _ in range(70):
            assert s.one(IN, 2 * CHUNK // 512, room=512)[1] == b"x" * 512 + bytes([OK])


def test_mapped_file_that_is_cut_fails_requests_and_ends_nothing(memory: Path) -> None:
    with served(memory, "threads", in_memory=True) as s:
        for sector in (0, CHUNK // 512):
            assert s.one(IN, sector, room=512)[1][-1] == OK
        os.truncate(memory, 4096)
        s.send(IN, CHUNK // 512, room=512)
        s.send(IN, 0, room=512)
        assert s.finish() == []
        assert [request.extents[0].offset for request, _ in s.handed] == [0, CHUNK]
        assert s.image.trust.standing.cut


def test_file_that_is_not_ours_to_write_is_not_mapped(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: not how and real(path, mode))
    with served(memory, "threads", in_memory=True) as s:
        assert s.one(IN, 1, room=512)[1][-1] == OK
        assert (took(s), s.service.shortcut is not None and s.service.shortcut.mapped) == (1, False)


def test_reads_that_would_wait_are_tried_more_rarely(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    with served(path, "threads") as s:
        for n in range(20):
            drop_cache(s.image)
            s.one(IN, 8 * n, room=512)
        if took(s):
            pytest.skip("the page cache keeps what it was told to drop")
        s.one(IN, 0, room=512)
        assert s.one(IN, 0, room=512)[1][-1] == OK
        assert took(s) == 0  # still skipped


def test_write_to_the_page_cache_is_in_the_file_when_it_is_answered(tmp_path: Path) -> None:
    """At once where the file system has such writes, by the engine elsewhere."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    with served(path, "threads") as s:
        for n in range(3):
            assert s.one(OUT, n, b"w" * 512)[1] == bytes([OK])
        assert path.read_bytes()[:2048] == b"w" * 1536 + bytes(512)
        assert s.image.trust.volatile
