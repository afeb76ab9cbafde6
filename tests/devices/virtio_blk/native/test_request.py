"""The C parser of block requests against the Python one: the same answer to everything, however it is cut up."""

import struct

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.devices.virtio_blk import request
from acrn_dm.devices.virtio_blk.native import _request as native
from tests.ring.fastring_rig import DATA, Rig

ROOM = 0x6000  # bytes of buffers in the rig's first region
KINDS = st.one_of(
    st.sampled_from([0, 1, 2, 4, 5, 8, 10, 11, 13, 14, 1 << 31, (1 << 31) | 1, (1 << 31) | 11]),
    st.integers(0, 2**32 - 1),
)
MOST = 2**54  # sectors of the largest file there can be, of 2^63 bytes
SECTORS = st.one_of(st.integers(0, 70), st.sampled_from([MOST, MOST - 1, 2**55, 2**63, 2**64 - 1, 2**64 - 8]))
COUNTS = st.one_of(st.integers(0, 70), st.sampled_from([2**32 - 1, 2**31]))
RANGES = st.lists(st.builds(struct.Struct("<QII").pack, SECTORS, COUNTS, st.integers(0, 3)), max_size=5)
LIMITS = st.builds(
    request.Limits,
    capacity=st.one_of(st.integers(0, 64), st.sampled_from([MOST, MOST - 1])),
    legacy=st.booleans(),
    readonly=st.booleans(),
    discard_segments=st.integers(0, 4),
    discard_sectors=st.sampled_from([0, 8, 2**32 - 1]),
    zeroes_segments=st.integers(0, 4),
    zeroes_sectors=st.sampled_from([0, 8, 2**32 - 1]),
    erase_segments=st.integers(0, 4),
    erase_sectors=st.sampled_from([0, 8, 2**32 - 1]),
    lifetime=st.booleans(),
)
PARTS = st.one_of(
    st.just(b""), st.binary(max_size=40), RANGES.map(b"".join), st.sampled_from([bytes(512), bytes(4096), bytes(513)])
)
CUTS = st.lists(st.integers(0, 80), max_size=4)
ROOMS = st.one_of(st.integers(0, 3), st.sampled_from([6, 7, 512, 513, 514, 4097, 1025]))


@attrs.frozen
class FromEnd:
    """A place this many sectors from the end of the medium."""

    sectors: int


def pieces(start: int, length: int, cuts: list[int]) -> list[tuple[int, int]]:
    """(gpa, length) of *length* bytes from *start* on, in pieces that end at *cuts*; none is empty."""
    ends = sorted({cut for cut in cuts if 0 < cut < length} | ({length} if length else set()))
    return [(start + a, b - a) for a, b in zip([0, *ends], ends, strict=False)]


def chain_of(rig: Rig, out: bytes, room: int, cuts: list[int]) -> Chain:
    """A chain of these bytes and that much room."""
    rig.memory.write(DATA, out)
    rig.offer(pieces(DATA, len(out), cuts), pieces(DATA + len(out), room, cuts))
    return rig.pop()


def answer(parse: object, chain: Chain, limits: request.Limits) -> object:
    try:
        return parse(chain, limits)  # type: ignore[operator]
    except GuestError as e:
        return str(e)


@settings(max_examples=300, deadline=None)
@given(
    kind=KINDS,
    sector=st.one_of(SECTORS, st.integers(-9, 1).map(FromEnd)),
    rest=PARTS,
    short=st.integers(0, 16),
    cuts=CUTS,
    room=ROOMS,
    limits=LIMITS,
)
def test_answers_are_those_of_the_reference(
    *, kind: int, sector: int | FromEnd, rest: bytes, short: int, cuts: list[int], room: int, limits: request.Limits
) -> None:
    sector = sector if isinstance(sector, int) else max(0, limits.capacity + sector.sectors)
    out = struct.pack("<IIQ", kind, 0, sector) + rest
    out = out[:-short] if short and short < len(out) and not rest else out
    rig = Rig(size=16)
    chain = chain_of(rig, out, room, cuts)
    fast = answer(native.parse, chain, limits)  # first: the other one moves the chain's cursor
    assert fast == answer(request.parse, chain, limits)


def test_a_header_in_single_bytes_is_put_together() -> None:
    rig = Rig(size=32)
    chain = chain_of(rig, struct.pack("<IIQ", 1, 0, 3) + bytes(512), 1, list(range(1, 17)))
    expected = request.Request(request.Op.WRITE, (request.Extent(3 * 512, 512),))
    assert native.parse(chain, request.Limits(capacity=4)) == expected


def test_every_op_has_the_number_that_c_has_for_it() -> None:
    assert [op.value for op in request.Op] == [1, 2, 3, 4, 5, 6, 7, 8]
