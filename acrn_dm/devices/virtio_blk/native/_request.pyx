# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Block requests parsed in C, with the answers of ``request.parse``, which is the reference."""

from acrn_dm._fastring cimport Chain, FrChain, FrSegment
from acrn_dm.devices.virtio_blk import request as reference
from acrn_dm.virtio.native._segments cimport gather
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<endian.h>" nogil:
    uint32_t le32toh(uint32_t value)
    uint64_t le64toh(uint64_t value)

cdef enum:
    BARRIER = 0x80000000
    UNMAP = 1
    BLK_LIFETIME = 6          # bytes of struct virtio_blk_lifetime

cdef struct Header:           # struct virtio_blk_req up to the data, little-endian
    uint32_t kind
    uint32_t reserved
    uint64_t sector

cdef struct Range:            # struct virtio_blk_discard_write_zeroes
    uint64_t sector
    uint32_t sectors
    uint32_t flags


cdef uint8_t *blk_status_byte(const FrChain *chain) noexcept nogil:
    cdef uint32_t i = chain.n_out + chain.n_in
    while i > chain.n_out:
        i -= 1
        if chain.segments[i].len:
            return <uint8_t *>chain.segments[i].hva + chain.segments[i].len - 1
    return NULL


cdef uint32_t blk_window(
    const FrSegment *segments, uint32_t n, uint32_t offset, uint32_t length, FrSegment *iov
) noexcept nogil:
    cdef uint32_t count = 0, i
    for i in range(n):
        if length == 0:
            break
        if offset >= segments[i].len:
            offset -= <uint32_t>segments[i].len
            continue
        iov[count].hva = <uint8_t *>segments[i].hva + offset
        iov[count].len = min(<size_t>length, segments[i].len - offset)
        length -= <uint32_t>iov[count].len
        count += 1
        offset = 0
    return count


cdef inline int op_of(uint32_t kind) noexcept nogil:
    """5.2.6; 5 is the legacy synonym of FLUSH; 0 for what is unknown."""
    if kind == 0:
        return BLK_READ
    if kind == 1:
        return BLK_WRITE
    if kind == 4 or kind == 5:
        return BLK_FLUSH
    if kind == 8:
        return BLK_GET_ID
    if kind == 11:
        return BLK_DISCARD
    if kind == 13:
        return BLK_WRITE_ZEROES
    if kind == 14:
        return BLK_SECURE_ERASE
    if kind == 10:
        return BLK_GET_LIFETIME
    return 0


cdef inline bint fits(uint64_t sector, uint64_t sectors, uint64_t capacity) noexcept nogil:
    return sectors <= capacity and sector <= capacity - sectors


cdef int transfer(BlkRequest *request, uint64_t sector, uint32_t length, uint64_t capacity) noexcept nogil:
    if length % BLK_SECTOR or not fits(sector, length // BLK_SECTOR, capacity):
        return BLK_S_IOERR
    request.offset = sector * BLK_SECTOR
    request.length = length
    return BLK_S_OK


cdef int extent(const Range *given, bint zeroes, uint32_t most, uint64_t capacity, BlkExtent *into) noexcept nogil:
    cdef uint64_t sector = le64toh(given.sector)
    cdef uint32_t sectors = le32toh(given.sectors)
    cdef uint32_t flags = le32toh(given.flags)
    if flags & ~(<uint32_t>UNMAP if zeroes else 0):  # 5.2.6.2: unknown flags, and unmap where nothing is zeroed
        return BLK_S_UNSUPP
    if sectors > most or not fits(sector, sectors, capacity):
        return BLK_S_IOERR
    into.offset = sector * BLK_SECTOR
    into.length = <uint64_t>sectors * BLK_SECTOR
    into.unmap = flags & UNMAP
    return BLK_S_OK


cdef int ranges(
    const FrChain *chain, const BlkLimits *limits, BlkRequest *request, BlkExtent *extents
) noexcept nogil:
    cdef bint zeroes = request.op == BLK_WRITE_ZEROES
    cdef uint32_t most = limits.zeroes_segments
    cdef uint32_t sectors = limits.zeroes_sectors
    cdef uint32_t size = chain.out_bytes - BLK_HEADER
    cdef Range given
    cdef uint32_t i
    cdef int status
    if request.op == BLK_DISCARD:
        most, sectors = limits.discard_segments, limits.discard_sectors
    elif request.op == BLK_SECURE_ERASE:
        most, sectors = limits.erase_segments, limits.erase_sectors
    if most == 0:
        return BLK_S_UNSUPP
    if size == 0 or size % BLK_EXTENT or size // BLK_EXTENT > min(most, <uint32_t>BLK_MAX_EXTENTS):
        return BLK_S_IOERR
    for i in range(size // BLK_EXTENT):
        gather(chain.segments, chain.n_out, BLK_HEADER + i * BLK_EXTENT, <uint8_t *>&given, BLK_EXTENT)
        status = extent(&given, zeroes, sectors, limits.capacity, &extents[i])
        if status != BLK_S_OK:
            return status
    request.n_extents = size // BLK_EXTENT
    return BLK_S_OK


cdef int blk_parse(
    const FrChain *chain, const BlkLimits *limits, BlkRequest *request, BlkExtent *extents
) noexcept nogil:
    cdef Header header
    cdef uint32_t kind
    request.op, request.n_extents, request.offset, request.length = 0, 0, 0, 0
    if chain.in_bytes < 1:
        return BLK_S_NO_ROOM
    if gather(chain.segments, chain.n_out, 0, <uint8_t *>&header, BLK_HEADER) < BLK_HEADER:
        return BLK_S_IOERR
    kind = le32toh(header.kind)
    request.op = op_of(kind & ~<uint32_t>BARRIER if limits.legacy else kind)
    if request.op == 0:
        return BLK_S_UNSUPP
    if limits.readonly and request.op in (BLK_WRITE, BLK_DISCARD, BLK_WRITE_ZEROES, BLK_SECURE_ERASE):
        return BLK_S_IOERR  # 5.2.6.2, also when the driver did not accept RO
    if request.op == BLK_READ:
        return transfer(request, le64toh(header.sector), chain.in_bytes - 1, limits.capacity)
    if request.op == BLK_WRITE:
        return transfer(request, le64toh(header.sector), chain.out_bytes - BLK_HEADER, limits.capacity)
    if request.op == BLK_GET_LIFETIME:
        if not limits.lifetime:
            return BLK_S_UNSUPP
        return BLK_S_OK if chain.in_bytes > BLK_LIFETIME else BLK_S_IOERR
    if request.op == BLK_DISCARD or request.op == BLK_WRITE_ZEROES or request.op == BLK_SECURE_ERASE:
        return ranges(chain, limits, request, extents)
    return BLK_S_OK


cdef int limits_from(BlkLimits *limits, object source) except -1:
    """The limits of *source* (``request.Limits``)."""
    limits.capacity = source.capacity
    limits.legacy = source.legacy
    limits.readonly = source.readonly
    limits.discard_segments = source.discard_segments
    limits.discard_sectors = source.discard_sectors
    limits.zeroes_segments = source.zeroes_segments
    limits.zeroes_sectors = source.zeroes_sectors
    limits.erase_segments = source.erase_segments
    limits.erase_sectors = source.erase_sectors
    limits.lifetime = source.lifetime
    return 0


cdef object request_from(const BlkRequest *request, const BlkExtent *extents):
    """The same request as the Python path knows it (``request.Request``)."""
    cdef uint32_t i
    op = reference.Op(request.op)
    if request.op == BLK_READ or request.op == BLK_WRITE:
        return reference.Request(op, (reference.Extent(request.offset, request.length),))
    return reference.Request(
        op,
        tuple(
            [
                reference.Extent(extents[i].offset, extents[i].length, bool(extents[i].unmap))
                for i in range(request.n_extents)
            ]
        ),
    )


def parse(Chain chain not None, limits):
    """``request.parse`` by the C parser: a Request, a Status, or GuestError without room for the status byte."""
    cdef BlkLimits bounds
    cdef BlkRequest request
    cdef BlkExtent extents[BLK_MAX_EXTENTS]
    cdef int status
    limits_from(&bounds, limits)
    with nogil:
        status = blk_parse(&chain.chain, &bounds, &request, extents)
    if status == BLK_S_NO_ROOM:
        raise reference.GuestError("block request without room for the status byte")
    return reference.Status(status) if status != BLK_S_OK else request_from(&request, extents)
