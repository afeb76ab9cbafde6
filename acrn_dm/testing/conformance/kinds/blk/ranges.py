"""Rules of discarding and zeroing (virtio 5.2.6)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.blk import disk as blk
from acrn_dm.testing.conformance.kinds.blk.disk import (
    DISCARD,
    IOERR,
    OK,
    SECTOR,
    SECURE_ERASE,
    UNMAP,
    UNSUPP,
    WRITE_ZEROES,
    disk,
    pattern,
    segment,
)
from acrn_dm.testing.conformance.rule import NotApplicable, rule

BLK = ("blk",)
UNKNOWN = (2, 4, 1 << 31, 0x8000_0002)
LIMITS_AT = {DISCARD: 36, WRITE_ZEROES: 48, SECURE_ERASE: 60}  # max sectors, then max segments
FEATURES = {DISCARD: blk.DISCARD_F, WRITE_ZEROES: blk.WRITE_ZEROES_F, SECURE_ERASE: blk.SECURE_ERASE_F}


def _unsupported(bench: Bench, kind: int, flags: int, *, want: int) -> None:
    """A request of *kind* with *flags* is UNSUPP, and changes nothing."""
    d = disk(bench, want=want)
    at = d.free(8)
    d.write(at, pattern(1, 4))
    status = d.status(kind, 0, segment(at, 4, flags))
    assert status == UNSUPP, f"a request of type {kind} with the flags {flags:#x} gets status {status}"
    assert d.read(at, 4) == pattern(1, 4), f"a refused request of type {kind} changes the medium"


@rule("blk.dwz.unknown_flags.discard", kinds=BLK, needs=("DISCARD",))
def discard_with_unknown_flags_is_unsupported(bench: Bench) -> None:
    for flags in UNKNOWN:
        _unsupported(bench, DISCARD, flags, want=blk.DISCARD_F)


@rule("blk.dwz.unknown_flags.wz", kinds=BLK, needs=("WRITE_ZEROES",))
def zeroing_with_unknown_flags_is_unsupported(bench: Bench) -> None:
    for flags in (*UNKNOWN, 3):
        _unsupported(bench, WRITE_ZEROES, flags, want=blk.WRITE_ZEROES_F)


@rule("blk.dwz.unknown_flags.erase", kinds=BLK, needs=("SECURE_ERASE",))
def secure_erase_with_unknown_flags_is_unsupported(bench: Bench) -> None:
    for flags in UNKNOWN:
        _unsupported(bench, SECURE_ERASE, flags, want=blk.SECURE_ERASE_F)


@rule("blk.discard.unmap", kinds=BLK, needs=("DISCARD",))
def discard_does_not_unmap(bench: Bench) -> None:
    _unsupported(bench, DISCARD, UNMAP, want=blk.DISCARD_F)


@rule("blk.wz.zeroes", kinds=BLK, over=("transport",), needs=("WRITE_ZEROES",))
def zeroed_range_reads_as_zeroes(bench: Bench) -> None:
    d = disk(bench, want=blk.WRITE_ZEROES_F)
    at = d.free(8)
    for flags in (0, UNMAP):
        d.write(at, pattern(1, 8))
        status = d.status(WRITE_ZEROES, 0, segment(at + 2, 3, flags))
        assert status == OK, f"zeroing with the flags {flags} gets status {status}"
        wanted = pattern(1, 8)
        wanted = wanted[: 2 * SECTOR] + bytes(3 * SECTOR) + wanted[5 * SECTOR :]
        assert d.read(at, 8) == wanted, f"zeroing with the flags {flags}: the range or what is beside it is wrong"


@rule("d.blk.dwz.segment", kinds=BLK)
def requests_have_as_many_segments_as_they_may(bench: Bench) -> None:
    d = disk(bench)
    kinds = [kind for kind, feature in FEATURES.items() if d.driver.features & feature]
    if not kinds:
        raise NotApplicable("not offered: DISCARD, WRITE_ZEROES, SECURE_ERASE")
    d.some()
    for kind in kinds:
        sectors, segments = (int.from_bytes(d.driver.read_config(LIMITS_AT[kind] + n, 4), "little") for n in (0, 4))
        assert min(sectors, segments) > 0, f"type {kind} may have {segments} segments of {sectors} sectors"
        at, count = d.free(segments), min(segments, 64)
        d.write(at, pattern(2, count))
        status = d.status(kind, 0, b"".join(segment(at + n, 1) for n in range(count)))
        assert status == OK, f"type {kind} with {count} segments gets status {status}"
        if kind == WRITE_ZEROES:
            assert d.read(at, count) == bytes(count * SECTOR), "not every segment is zeroed"
        if segments <= 64:
            status = d.status(kind, 0, segment(at, 1) * (segments + 1))
            assert status != OK, f"type {kind} with more than {segments} segments is done"
        for wrong in (segment(d.capacity, 1), segment(at, 1)[:-1], b""):
            assert d.status(kind, 0, wrong) == IOERR, f"type {kind} with the segment {wrong.hex()} is done"


@rule("dm.blk.unnegotiated", kinds=BLK, over=("transport",))
def request_without_its_feature_is_unsupported(bench: Bench) -> None:
    d = disk(bench, without=blk.DISCARD_F | blk.WRITE_ZEROES_F | blk.SECURE_ERASE_F)
    at = d.free(8)
    d.write(at, pattern(1, 4))
    for kind in (DISCARD, WRITE_ZEROES, SECURE_ERASE):
        status = d.status(kind, 0, segment(at, 4))
        assert status == UNSUPP, f"type {kind}, which was not negotiated, gets status {status}"
    assert d.read(at, 4) == pattern(1, 4), "a refused request changes the medium"
