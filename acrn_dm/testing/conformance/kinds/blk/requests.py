"""Rules of requests and their answers (virtio 5.2.6)."""

import errno
import itertools

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.blk import disk as blk
from acrn_dm.testing.conformance.kinds.blk.disk import (
    FLUSH,
    GET_ID,
    GET_LIFETIME,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
    UNSUPP,
    ZONE_TYPES,
    disk,
    header,
    pattern,
)
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import POISON

BLK = ("blk",)
BOTH = ("transport", "interrupts")
CUTS = ((16,), (1, 15), (8, 8), (10, 5, 1))  # of the header
NOBODYS = (2, 3, 7, 9, 0x7F, 0xFFFF, 0x7FFF_FFFF)  # request types


@rule("d.blk.req.layout", kinds=BLK, over=BOTH)
def request_means_the_same_however_it_lies(bench: Bench) -> None:
    d = disk(bench)
    sector = d.some()
    first = d.read(sector)
    for cut, room in itertools.product(CUTS, ([SECTOR, 1], [SECTOR + 1], [100, 412, 1], [1, 511, 1], [500, 13])):
        out, rest = [], header(IN, sector)
        for size in cut:
            out.append(rest[:size])
            rest = rest[size:]
        done = d.send(out, room)
        assert done.data[-1] == OK, f"a read in buffers of {cut} and {room} gets status {done.data[-1]}"
        assert done.data[:-1] == first, f"a read in buffers of {cut} and {room} brings something else"


@rule("d.blk.status.values", kinds=BLK, over=BOTH)
def unknown_request_is_unsupported(bench: Bench) -> None:
    d = disk(bench)
    for kind in NOBODYS:
        status = d.status(kind)
        assert status == UNSUPP, f"a request of type {kind:#x} gets status {status}"
    assert d.status(IN, d.some(), room=SECTOR) == OK
    assert d.status(IN, d.capacity, room=SECTOR) == IOERR, "a read behind the end does not fail"


@rule("d.blk.used_len.in", kinds=BLK)
def used_length_is_what_was_written(bench: Bench) -> None:
    d = disk(bench)
    d.some()
    for sectors in (1, 3):
        done = d.request(IN, 0, room=sectors * SECTOR)
        assert done.written == sectors * SECTOR + 1, f"a read of {sectors} sectors uses {done.written} bytes"
    failed = d.request(IN, d.capacity, room=SECTOR)
    claimed = failed.data[: min(failed.written, SECTOR)]
    assert claimed != bytes([POISON]) * len(claimed) or not claimed, "a failed read claims bytes that it did not write"
    assert d.request(FLUSH).written <= 1


@rule("d.blk.get_id", kinds=BLK)
def identity_is_the_mediums(bench: Bench) -> None:
    d = disk(bench)
    d.some()
    done = d.request(GET_ID, room=20)
    assert done.data[-1] == OK, f"GET_ID gets status {done.data[-1]}"
    assert done.data[:20].isascii(), f"GET_ID brings {done.data[:20]!r}"
    assert done.data[:20] == d.medium.serial[:20].ljust(20, b"\0"), f"GET_ID brings {done.data[:20]!r}"


@rule("blk.zoned.reject_unnegotiated", kinds=BLK)
def zone_requests_are_unsupported_without_their_feature(bench: Bench) -> None:
    d = disk(bench, without=blk.ZONED)
    for kind in ZONE_TYPES:
        for done in (d.request(kind), d.request(kind, room=SECTOR), d.request(kind, 0, bytes(SECTOR))):
            assert done.data[-1] == UNSUPP, f"a zone request of type {kind} gets status {done.data[-1]}"


@rule("blk.lifetime.no_offer", kinds=BLK)
def lifetime_is_offered_where_there_is_one(bench: Bench) -> None:
    d = disk(bench)
    status = d.status(GET_LIFETIME, room=6)
    expected = OK if bench.offered & blk.LIFETIME else UNSUPP
    assert status == expected, f"GET_LIFETIME gets status {status} where LIFETIME is offered: {expected == OK}"


@rule("blk.lifetime.no_reserved", "d.blk.lifetime.layout", kinds=BLK, needs=("LIFETIME",))
def lifetime_has_no_reserved_values(bench: Bench) -> None:
    d = disk(bench, want=blk.LIFETIME)
    done = d.request(GET_LIFETIME, room=6)
    eol, a, b = (int.from_bytes(done.data[at : at + 2], "little") for at in (0, 2, 4))
    assert done.data[-1] == OK
    assert (eol <= 3, a <= 11, b <= 11) == (True, True, True), f"pre_eol_info {eol}, estimates {a} and {b}"


@rule("d.blk.ro", "blk.ro.ioerr", kinds=BLK, over=("transport",), needs=("RO",))
def read_only_disk_fails_writes(bench: Bench) -> None:
    for without in (0, blk.RO):
        d = disk(bench, without=without)
        for kind, data in ((OUT, bytes(SECTOR)), (OUT, bytes(2 * SECTOR))):
            status = d.status(kind, 0, data)
            assert status == IOERR, f"a write to a read-only disk gets status {status}"
        assert d.status(IN, d.some(), room=SECTOR) == OK


@rule("blk.ro.no_write", kinds=BLK, needs=("RO",))
def read_only_disk_stays_as_it_is(bench: Bench) -> None:
    for without in (0, blk.RO):
        d = disk(bench, without=without)
        before = d.medium.read(0, 8 * SECTOR)
        for kind, data in ((OUT, pattern(3, 2)), *((k, blk.segment(0, 4)) for k in (blk.DISCARD, blk.WRITE_ZEROES))):
            d.request(kind, 0, data)
        assert d.medium.read(0, 8 * SECTOR) == before, "the medium of a read-only disk changes"


@rule("dm.blk.data", kinds=BLK, over=("transport", "pairs"))
def data_are_on_the_medium(bench: Bench) -> None:
    d = disk(bench)
    at = d.free(8)
    for seed, sectors in ((1, 1), (2, 8)):
        d.write(at, pattern(seed, sectors))
        assert d.read(at, sectors) == pattern(seed, sectors), "a read brings something else than was written"
        assert d.medium.read(at * SECTOR, sectors * SECTOR) == pattern(seed, sectors), "the medium has something else"
    d.medium.write(at * SECTOR, pattern(3))
    assert d.read(at) == pattern(3), "a read brings something else than the medium has"


@rule("dm.blk.end", kinds=BLK)
def requests_stay_within_the_capacity(bench: Bench) -> None:
    d = disk(bench)
    end = d.capacity
    d.some()
    for sector, room in ((end, SECTOR), (end - 1, 2 * SECTOR), (2**64 - 1, SECTOR), (2**63, SECTOR)):
        status = d.status(IN, sector, room=room)
        assert status == IOERR, f"reading {room} bytes at sector {sector:#x} of {end:#x} gets status {status}"
    assert d.status(IN, end - 1, room=SECTOR) == OK, "the last sector can't be read"
    assert d.status(IN, 0, room=SECTOR + 1) == IOERR, "a read of 513 bytes is accepted"


@rule("dm.blk.host_fault", kinds=BLK)
def failure_of_the_medium_is_told(bench: Bench) -> None:
    d = disk(bench)
    at = d.free(8)
    d.write(at, pattern(1))
    d.medium.fail_next(errno.EIO)
    assert d.status(OUT, at, pattern(2)) == IOERR, "a write that failed does not say so"
    d.write(at, pattern(3))
    assert d.read(at) == pattern(3), "the disk is not usable after a failure"
