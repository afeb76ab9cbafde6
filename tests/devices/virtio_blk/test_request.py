"""virtio-blk against drivers that write nonsense. Numbers in names are rows of the collected device-model bugs."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    FLUSH_OUT,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    POISON,
    SCSI,
    UNSUPP,
    WRITE_ZEROES,
    Disk,
    disk,
    header,
    image,
    segment,
    slow_medium,
)

pytestmark = [pytest.mark.both_formats, pytest.mark.usefixtures("each_aio")]

SECTORS = 64
ALL_TYPES = [IN, OUT, SCSI, FLUSH, FLUSH_OUT, GET_ID, DISCARD, WRITE_ZEROES, 0xFFFF_FFFF]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return image(tmp_path, SECTORS)


@pytest.fixture
def raw(path: Path) -> Iterator[Disk]:
    with disk(f"{path},discard=16:2:0") as d:
        yield d


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_row_69_request_without_status_byte_asks_for_a_reset(raw: Disk, kind: int) -> None:
    raw.queue.send([header(kind)], [])
    raw.queue.kick()
    raw.machine.settle()
    assert raw.queue.completed() == []
    assert len(raw.machine.failures) == 1


@pytest.mark.parametrize("length", range(16))
def test_row_69_short_header_with_a_status_byte_is_an_error(raw: Disk, length: int) -> None:
    done = raw.queue.transfer([bytes(length)] if length else [], [1])
    assert (done.written, done.data) == (1, bytes([IOERR]))


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_row_67_used_length_never_exceeds_what_was_written(raw: Disk, kind: int) -> None:
    done = raw.request(kind, 0, room=512)
    assert done.data[: done.written].count(POISON) == 0
    assert done.data[-1] in (OK, IOERR, UNSUPP)


@pytest.mark.parametrize("kind", [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES])
def test_row_11_header_and_status_alone_are_answered(raw: Disk, kind: int) -> None:
    done = raw.queue.transfer([header(kind)], [1])
    assert done.written == 1
    assert done.data[0] in (OK, IOERR)


def test_failed_read_claims_no_byte(raw: Disk) -> None:
    done = raw.request(IN, SECTORS, room=512)
    assert (done.written, done.data) == (0, POISON * 512 + bytes([IOERR]))


@pytest.mark.parametrize(
    ("sector", "sectors"), [(SECTORS - 1, 2), (SECTORS, 1), (SECTORS + 1, 1), (2**55, 1), (2**64 - 1, 1)]
)
@pytest.mark.parametrize("kind", [IN, OUT])
def test_row_70_transfer_past_the_end_fails_and_the_file_does_not_grow(
    raw: Disk, path: Path, kind: int, sector: int, sectors: int
) -> None:
    before = path.read_bytes()
    data, room = (bytes(512 * sectors), 0) if kind == OUT else (b"", 512 * sectors)
    assert raw.request(kind, sector, data, room).data[-1] == IOERR
    assert path.read_bytes() == before


def test_row_70_many_buffers_are_summed_against_the_capacity(raw: Disk, path: Path) -> None:
    before = path.read_bytes()
    done = raw.queue.transfer([header(OUT, SECTORS - 2), *[bytes(512)] * 3], [1])
    assert done.data[-1] == IOERR
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
@pytest.mark.parametrize("sector", [SECTORS - 1, SECTORS, 2**55, 2**64 - 1])
def test_row_70_segment_past_the_end_fails_and_the_file_does_not_grow(
    raw: Disk, path: Path, kind: int, sector: int
) -> None:
    before = path.read_bytes()
    assert raw.request(kind, 0, segment(sector, 2)).data[-1] == IOERR
    assert path.read_bytes() == before


def test_row_70_one_bad_segment_spoils_the_whole_request(raw: Disk, path: Path) -> None:
    before = path.read_bytes()
    assert raw.request(DISCARD, 0, segment(0, 1) + segment(SECTORS, 1)).data[-1] == IOERR
    assert path.read_bytes() == before


def test_row_71_out_of_range_is_the_guests_error_not_the_hosts(raw: Disk) -> None:
    raw.request(IN, SECTORS, room=512)
    assert raw.device.errors == 0
    assert raw.machine.failures == []
    assert raw.read(0)[:8] == bytes(8)


@pytest.mark.parametrize("count", [0, 3, 64])
def test_row_72_segment_count_outside_the_limit_is_an_error(raw: Disk, count: int) -> None:
    assert raw.request(DISCARD, 0, segment(0, 1) * count).data[-1] == IOERR


@pytest.mark.parametrize("length", [1, 15, 17, 31])
def test_row_72_segment_data_of_odd_length_is_an_error(raw: Disk, length: int) -> None:
    assert raw.request(DISCARD, 0, bytes(length)).data[-1] == IOERR


def test_row_72_segment_longer_than_the_limit_is_an_error(raw: Disk) -> None:
    assert raw.request(DISCARD, 0, segment(0, 17)).data[-1] == IOERR


def test_row_73_what_a_guest_writes_does_not_change_the_format(path: Path) -> None:
    cow_header = (b"QFI\xfb" + struct.pack(">I", 3)).ljust(512, b"\0")
    with disk(str(path)) as d:
        assert d.write(0, cow_header) == OK
    with disk(str(path)) as d:
        assert d.read(0) == cow_header
        assert d.driver.registers.read_config(0, 4) == SECTORS


@pytest.mark.parametrize("length", [1, 511, 513])
def test_transfer_of_half_sectors_is_an_error(raw: Disk, length: int) -> None:
    assert raw.request(OUT, 0, bytes(length)).data[-1] == IOERR
    assert raw.request(IN, 0, room=length).data[-1] == IOERR


@pytest.mark.parametrize("flags", [1, 2, 0x8000_0000])
def test_blk_dwz_unknown_flags_discard_is_unsupported(raw: Disk, flags: int) -> None:
    assert raw.request(DISCARD, 0, segment(0, 1, flags)).data[-1] == UNSUPP


@pytest.mark.parametrize("flags", [2, 3, 0x8000_0000])
def test_blk_dwz_unknown_flags_wz_is_unsupported_and_writes_nothing(raw: Disk, path: Path, flags: int) -> None:
    before = path.read_bytes()
    assert raw.request(WRITE_ZEROES, 0, segment(1, 1, flags)).data[-1] == UNSUPP
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [15, 16, 18, 20, 22, 24, 26, SCSI, 3, 7, 10, 14])
def test_blk_zoned_and_other_types_that_are_not_offered_are_unsupported(raw: Disk, kind: int) -> None:
    assert raw.request(kind, 0, room=512).data[-1] == UNSUPP


def test_legacy_barrier_bit_is_ignored(path: Path) -> None:
    with disk(str(path), legacy=True) as d:
        assert d.request(IN | 1 << 31, 5, room=512).data[:8] == struct.pack("<Q", 5)


@pytest.mark.parametrize("kind", [IN, OUT, FLUSH, DISCARD, WRITE_ZEROES])
def test_d_blk_status_values_barrier_bit_of_a_modern_driver_is_an_unknown_type(
    raw: Disk, path: Path, kind: int
) -> None:
    """Row d.blk.status.values: types that are not supported give UNSUPP; BARRIER is a legacy driver's."""
    before = path.read_bytes()
    data = {OUT: b"b" * 512, DISCARD: segment(1, 1), WRITE_ZEROES: segment(1, 1)}.get(kind, b"")
    assert raw.request(kind | 1 << 31, 1, data, 512 if kind == IN else 0).data[-1] == UNSUPP
    assert path.read_bytes() == before


@pytest.mark.parametrize("cuts", [[1] * 529, [16, 512, 1], [8, 8, 256, 256, 1], [15, 514]])
def test_any_framing_of_a_write_means_the_same(path: Path, cuts: list[int]) -> None:
    message = header(OUT, 3) + b"n" * 512
    parts, at = [], 0
    while at < len(message):
        step = cuts.pop(0) if cuts else len(message) - at
        parts.append(message[at : at + step])
        at += step
    with disk(str(path), memory=32 << 20) as d:
        done = d.queue.transfer(parts, [1], indirect=len(parts) > 200)
        assert done.data[-1] == OK
        assert d.read(3) == b"n" * 512


@pytest.mark.parametrize("room", [[513], [256, 257], [1, 511, 1], [100] * 5 + [13]])
def test_any_framing_of_a_read_means_the_same(raw: Disk, room: list[int]) -> None:
    done = raw.queue.transfer([header(IN, 3)], room)
    assert done.written == 513
    assert done.data[:8] + done.data[-1:] == struct.pack("<Q", 3) + bytes([OK])


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
@pytest.mark.parametrize("each_aio", [""], ids=["python"], indirect=True)  # there a request takes as long as we like
def test_row_29_head_submitted_twice_while_in_flight_asks_for_a_reset(raw: Disk) -> None:
    with slow_medium(raw) as gate:
        raw.queue.send([header(OUT), b"1" * 512], [1])
        first_entry = raw.machine.memory.read(raw.queue.ring.layout.avail + 4, 2)
        raw.queue.ring.make_available(int.from_bytes(first_entry, "little"))
        raw.queue.ring.publish()
        raw.queue.kick(force=True)
        for loop in raw.machine.io_loops.values():
            loop.step()
        gate.set()
        raw.machine.settle()
    assert len(raw.machine.failures) == 1
    assert raw.driver.status & NEEDS_RESET
