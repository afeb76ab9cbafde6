"""The native executor with O_DIRECT: guest buffers that the kernel does not take go through one of ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_blk.image.backend_direct import DirectImage
from acrn_dm.devices.virtio_blk.request import Op
from tests.devices.virtio_blk.blk_rig import IN, OK, OUT
from tests.devices.virtio_blk.native.service_rig import Served, engines, served

BYTES = 1 << 20
BOUNCE = 64 << 10


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def direct(folder: Path, engine: str, *, durable: bool = False) -> Iterator[Served]:
    """A disk with ``nocache``; skips where the file system has no O_DIRECT or takes any buffer."""
    path = folder / "disk"
    path.write_bytes(os.urandom(BYTES))
    with served(path, engine, ",nocache", durable=durable) as s:
        assert isinstance(s.image, DirectImage)
        if takes_any_buffer(s.image):
            pytest.skip("O_DIRECT takes any buffer here")
        yield s


def takes_any_buffer(image: DirectImage) -> bool:
    try:
        return os.preadv(image.fd, [memoryview(bytearray(8192))[17 : 17 + 4096]], 0) == 4096
    except OSError:
        return False


def content(s: Served, offset: int, length: int) -> bytes:
    return os.pread(s.image.buffered_fd, length, offset)  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [4096, BOUNCE, BOUNCE + 8192])
def test_read_into_a_buffer_that_is_not_aligned(tmp_path: Path, engine: str, length: int) -> None:
    with direct(tmp_path, engine) as s:
        assert s.one(IN, 8, room=length) == (length + 1, content(s, 4096, length) + bytes([OK]))
        assert s.handed == []


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("length", [4096, BOUNCE + 8192])
def test_write_from_a_buffer_that_is_not_aligned(tmp_path: Path, engine: str, length: int, durable: bool) -> None:
    with direct(tmp_path, engine, durable=durable) as s:
        before, data = content(s, 0, BYTES), os.urandom(length)
        assert s.one(OUT, 8, data) == (1, bytes([OK]))
        assert content(s, 0, BYTES) == before[:4096] + data + before[4096 + length :]
        assert (s.handed, s.image.trust.volatile) == ([], not durable)


def test_more_than_there_are_buffers_for_goes_to_the_python_path(tmp_path: Path) -> None:
    with direct(tmp_path, "threads") as s:
        s.service.max_bouncing = 2
        for n in range(8):
            s.send(IN, 8 * n, room=4096)
        done = s.finish()
        assert [data[-1] for _, data in done] == [OK] * len(done)
        assert (len(done) + len(s.handed), len(s.handed) > 0) == (8, True)
        s.handed.clear()
        for n in range(12):  # those that are done have given theirs back
            assert s.one(IN, 8 * n, room=4096)[1] == content(s, 4096 * n, 4096) + bytes([OK])
        assert s.handed == []


def test_request_that_is_not_aligned_goes_to_the_python_path(tmp_path: Path, engine: str) -> None:
    with direct(tmp_path, engine) as s:
        if s.image.alignment == 512:  # type: ignore[attr-defined]
            pytest.skip("every request is aligned here")
        s.send(IN, 1, room=512)
        assert s.finish() == []
        assert [request.op for request, _ in s.handed] == [Op.READ]
