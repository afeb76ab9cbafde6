"""Discards and zeroes that the native executor does by fallocate, over each engine."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acrn_dm.devices.virtio_blk.engine.execute import execute
from acrn_dm.devices.virtio_blk.image.backend import KEEP_SIZE, ZERO_RANGE, fallocate
from acrn_dm.devices.virtio_blk.medium import open_image
from acrn_dm.devices.virtio_blk.native.engines import choice
from acrn_dm.devices.virtio_blk.native.engines._pool import PoolEngine
from acrn_dm.devices.virtio_blk.request import Extent, Op, Request
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    OK,
    UNSUPP,
    WRITE_ZEROES,
    Disk,
    config,
    disk,
    image,
    segment,
)
from tests.devices.virtio_blk.native.service_rig import Served, engines, limits, make_engine, served

SECTOR, SECTORS = 512, 256
UNMAP = 1


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An image where the file system zeroes in place (tmpfs does not)."""
    made = image(tmp_path, SECTORS)
    with made.open("r+b") as file:
        try:
            fallocate(file.fileno(), ZERO_RANGE | KEEP_SIZE, 0, 8)
        except OSError as e:
            pytest.skip(f"no FALLOC_FL_ZERO_RANGE: {e.strerror}")
    return image(tmp_path, SECTORS)


def allow(s: Served, *, durable: bool = False) -> None:
    """Requests may have several ranges."""
    given_ = attrs.evolve(limits(s.image), zeroes_segments=4, discard_segments=4, discard_sectors=SECTORS)
    s.service.limit(given_, durable=durable)


def on_another(s: Served, engine: str, fd: int) -> None:
    """Let the engine be one for the file *fd*."""
    s.service.adopt(make_engine(engine, fd), s.image, alignment=0, in_memory=False)


def wiped(path: Path, *ranges: tuple[int, int]) -> bytes:
    """The image as it is to be when these (sector, sectors) were zeroed."""
    data = bytearray(path.read_bytes())
    for sector, sectors in ranges:
        data[sector * SECTOR : (sector + sectors) * SECTOR] = bytes(sectors * SECTOR)
    return bytes(data)


@pytest.mark.parametrize("flags", [0, UNMAP])
@pytest.mark.parametrize("durable", [True, False])
def test_zeroed_ranges_are_zero_and_as_durable_as_the_mode_says(
    engine: str, path: Path, durable: bool, flags: int
) -> None:
    expected = wiped(path, (3, 5), (40, 60))
    with served(path, engine) as s:
        allow(s, durable=durable)
        data = segment(3, 5, flags) + segment(20, 0) + segment(40, 60, flags)
        assert s.one(WRITE_ZEROES, 0, data) == (1, bytes([OK]))
        assert (path.read_bytes(), s.handed) == (expected, [])
        assert s.image.trust.volatile == (not durable)
        assert os.stat(path).st_size == SECTORS * SECTOR


@pytest.mark.parametrize(
    ("kind", "flags", "freed"), [(DISCARD, 0, 64), (WRITE_ZEROES, UNMAP, 64), (WRITE_ZEROES, 0, 0)]
)
def test_blocks_are_given_back_where_they_may_be(engine: str, path: Path, kind: int, flags: int, freed: int) -> None:
    with served(path, engine) as s:
        allow(s)
        s.image.flush()
        before = os.stat(path).st_blocks
        assert s.one(kind, 0, segment(64, 64, flags)) == (1, bytes([OK]))
        assert os.stat(path).st_blocks == before - freed
        assert s.handed == []


def test_discard_promises_nothing(engine: str, path: Path) -> None:
    with served(path, engine, durable=True) as s:
        allow(s, durable=True)
        assert s.one(DISCARD, 0, segment(0, 8)) == (1, bytes([OK]))
        assert not s.image.trust.volatile


def test_ranges_count_from_the_visible_part(engine: str, path: Path) -> None:
    expected = wiped(path, (18, 2))
    with served(path, engine, ",range=16/64") as s:
        allow(s)
        assert s.one(WRITE_ZEROES, 0, segment(2, 2)) == (1, bytes([OK]))
    assert path.read_bytes() == expected


def test_range_without_a_length_changes_nothing(engine: str, path: Path) -> None:
    expected = path.read_bytes()
    with served(path, engine, durable=True) as s:
        allow(s, durable=True)
        assert s.one(WRITE_ZEROES, 0, segment(5, 0)) == (1, bytes([OK]))
        assert s.one(DISCARD, 0, segment(5, 0)) == (1, bytes([OK]))
    assert path.read_bytes() == expected


def test_durable_zeroes_beside_another_queues_flush_wait_in_the_python_path(engine: str, path: Path) -> None:
    with served(path, engine, durable=True) as s:
        before = s.image.trust.standing.begin_sync()
        s.send(WRITE_ZEROES, 0, segment(5, 1))
        assert s.finish() == []
        assert [(request.op, err) for request, err in s.handed] == [(Op.WRITE_ZEROES, 0)]
        s.image.trust.standing.end_sync(before, 0)


def test_image_that_was_cut_is_left_to_who_has_words_for_it(engine: str, path: Path) -> None:
    with served(path, engine) as s:
        allow(s)
        os.truncate(path, SECTOR)
        s.send(DISCARD, 0, segment(0, 1))
        assert s.finish() == []
        assert [err for _, err in s.handed] == [0]
        assert s.image.trust.standing.cut


@pytest.mark.parametrize(("kind", "err"), [(DISCARD, errno.EOPNOTSUPP), (WRITE_ZEROES, 0)])
def test_what_the_file_system_has_not_is_handed_over(engine: str, path: Path, kind: int, err: int) -> None:
    """Zeroes can be written out, so that they have not failed yet. What /proc has is a file without fallocate."""
    with served(path, engine) as s, Path("/proc/self/oom_score_adj").open("r+b", 0) as other:
        allow(s)
        on_another(s, engine, other.fileno())
        s.send(kind, 0, segment(3, 5))
        assert s.finish() == []
        assert [(request.extents[0].offset, got) for request, got in s.handed] == [(3 * SECTOR, err)]


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
def test_what_fails_is_handed_over_with_its_errno(engine: str, path: Path, kind: int) -> None:
    reader, writer = os.pipe()
    with served(path, engine) as s:
        allow(s)
        on_another(s, engine, writer)
        s.send(kind, 0, segment(3, 5))
        assert s.finish() == []
        assert [got for _, got in s.handed] == [errno.ESPIPE]
    os.close(reader)
    os.close(writer)


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=RANGES, durable=st.booleans())
def test_image_is_as_python_would_have_left_it(
    engine: str, tmp_path: Path, kind: int, ranges: list[tuple[int, int, bool]], durable: bool
) -> None:
    op = {DISCARD: Op.DISCARD, WRITE_ZEROES: Op.WRITE_ZEROES}[kind]
    ours, reference = image(tmp_path, 64), image(tmp_path, 64, "reference.img")
    with served(ours, engine, durable=durable) as s:
        allow(s, durable=durable)
        flags = [int(unmap and op is Op.WRITE_ZEROES) for _, _, unmap in ranges]
        data = b"".join(segment(at, n, flag) for (at, n, _), flag in zip(ranges, flags, strict=True))
        assert s.one(kind, 0, data) == (1, bytes([OK]))
        assert s.handed == []
    other = open_image(config(str(reference)))
    extents = tuple(Extent(at * SECTOR, n * SECTOR, bool(f)) for (at, n, _), f in zip(ranges, flags, strict=True))
    execute(other, Request(op, extents), [], durable=durable)
    other.close()
    assert ours.read_bytes() == reference.read_bytes()


@pytest.fixture
def without_fallocate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Disk]:
    """A disk whose engine is on a file without fallocate."""
    with Path("/proc/self/oom_score_adj").open("r+b", 0) as other:
        monkeypatch.setattr(choice, "PoolEngine", lambda fd, depth: PoolEngine(other.fileno(), depth))
        with disk(f"{image(tmp_path)},discard,aio=threads") as d:
            yield d


def test_zeroes_are_written_out_where_nothing_else_can_be_done(without_fallocate: Disk) -> None:
    assert without_fallocate.request(WRITE_ZEROES, 0, segment(8, 8)).data[-1] == OK
    assert without_fallocate.device.image is not None
    assert os.pread(without_fallocate.device.image.fd, 8 * SECTOR, 8 * SECTOR) == bytes(8 * SECTOR)


def test_discard_that_can_not_be_done_is_unsupported(without_fallocate: Disk) -> None:
    assert without_fallocate.request(DISCARD, 0, segment(8, 8)).data[-1] == UNSUPP
    assert without_fallocate.request(FLUSH).data[-1] != UNSUPP
