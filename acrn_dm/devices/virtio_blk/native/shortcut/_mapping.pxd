# A file that is in memory, mapped: its bytes are copied to the guest without a system call.

from acrn_dm._fastring cimport FrSegment
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    BLK_CHUNK = 512 * 4096    # bytes of the file that are found to be in memory together

cdef struct BlkMapping:
    const uint8_t *base       # NULL: not mapped
    uint64_t size
    uint8_t *chunks           # of each: whether it is known to be in memory, or how many reads pass until it is asked
    uint64_t punches          # of the image, when the chunks were last forgotten

# Map the first *size* bytes of *fd*; false where that can't be.
cdef bint mapping_open(BlkMapping *mapping, int fd, uint64_t size) noexcept nogil
cdef void mapping_close(BlkMapping *mapping) noexcept nogil
# Copy what stands at *offset* to *n* segments, of *length* bytes in all; false if it is not all in memory. *punches*:
# how often the image has had holes made.
cdef bint mapping_read(
    BlkMapping *mapping, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, uint64_t punches
) noexcept nogil
