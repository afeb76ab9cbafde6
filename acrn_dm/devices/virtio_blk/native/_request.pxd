# A block request parsed from a chain, in C: the answers of ../request.py, whose words the enums repeat.

from acrn_dm._fastring cimport FrChain, FrSegment
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    BLK_SECTOR = 512
    BLK_HEADER = 16           # le32 type, le32 reserved, le64 sector (5.2.6)
    BLK_EXTENT = 16           # le64 sector, le32 num_sectors, le32 flags
    BLK_MAX_EXTENTS = 256     # ranges of one request; config.MAX_DISCARD_SEGMENTS

cdef enum BlkStatus:          # the byte at the end of a request
    BLK_S_OK = 0
    BLK_S_IOERR = 1
    BLK_S_UNSUPP = 2
    BLK_S_NO_ROOM = -1        # there is none: the driver's fault

cdef enum BlkOp:              # request.Op
    BLK_READ = 1
    BLK_WRITE = 2
    BLK_FLUSH = 3
    BLK_GET_ID = 4
    BLK_DISCARD = 5
    BLK_WRITE_ZEROES = 6
    BLK_SECURE_ERASE = 7
    BLK_GET_LIFETIME = 8

cdef struct BlkLimits:        # request.Limits
    uint64_t capacity
    uint32_t discard_segments
    uint32_t discard_sectors
    uint32_t zeroes_segments
    uint32_t zeroes_sectors
    uint32_t erase_segments
    uint32_t erase_sectors
    bint lifetime
    bint legacy
    bint readonly

cdef struct BlkExtent:        # in bytes
    uint64_t offset
    uint64_t length
    bint unmap

cdef struct BlkRequest:
    int op
    uint32_t n_extents
    uint64_t offset           # of a read or write, in bytes; its extent has no entry in *extents*
    uint32_t length

# Parse *chain*; BLK_S_OK is a request that may be executed, what else is its answer. Reads each byte of the header and
# of the ranges once. *extents* has room for BLK_MAX_EXTENTS.
cdef int blk_parse(
    const FrChain *chain, const BlkLimits *limits, BlkRequest *request, BlkExtent *extents
) noexcept nogil
# The last byte of the device-writable part, which there is.
cdef uint8_t *blk_status_byte(const FrChain *chain) noexcept nogil
# Fill *iov* (room for *n* entries) with *length* bytes of the segments from *offset* on; returns the number of entries.
cdef uint32_t blk_window(
    const FrSegment *segments, uint32_t n, uint32_t offset, uint32_t length, FrSegment *iov
) noexcept nogil

cdef int limits_from(BlkLimits *limits, object source) except -1
cdef object request_from(const BlkRequest *request, const BlkExtent *extents)
