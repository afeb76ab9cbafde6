# Guest memory as the rings see it: regions, the one translation of a guest address, and Python's map of them.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>":
    # A translated stretch of a guest buffer. It is a struct iovec, so a run of them goes to readv and writev as it is.
    ctypedef struct FrSegment "struct iovec":
        void *hva "iov_base"
        size_t len "iov_len"

cdef enum:
    FR_MAX_REGIONS = 8        # regions of guest RAM; scanned linearly, which beats every tree at this number

cdef struct FrRegion:
    uint64_t gpa
    uint64_t size
    uint8_t *hva

cdef struct FrMemory:
    uint32_t n_regions
    uint32_t n_joints         # pairs of regions that touch: how often one buffer can be split
    # By size, the largest first, but of the first two that with the lower gpa; where there is one only, the second is
    # empty and at 2^64 - 1.
    FrRegion regions[FR_MAX_REGIONS]

# One guest address becomes a pointer here and nowhere else. NULL outside RAM; *room* is how far the pointer is good.
cdef inline void *fr_translate(const FrMemory *memory, uint64_t gpa, uint64_t *room) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t offset
    for i in range(memory.n_regions):
        # Below the region's base the subtraction wraps to a huge offset, so one comparison checks both ends.
        offset = gpa - memory.regions[i].gpa
        if offset < memory.regions[i].size:
            room[0] = memory.regions[i].size - offset
            return memory.regions[i].hva + offset
    room[0] = 0
    return NULL

cdef inline bint fr_within(const FrRegion *region, uint64_t gpa, uint64_t length, void **hva) noexcept nogil:
    # Of a buffer that is empty, or that begins below the region, the last offset is below the first or out of reach.
    cdef uint64_t offset = gpa - region.gpa
    cdef uint64_t last = offset + (length - 1)
    if fr_unlikely(last < offset):
        return False
    if fr_unlikely(last >= region.size):
        return False
    hva[0] = region.hva + offset
    return True

# Whether all of a buffer, which is not empty, lies in one of the first two regions, the largest; *hva* then is where.
# Where this says no, fr_translate knows more.
cdef inline bint fr_whole(const FrMemory *memory, uint64_t gpa, uint64_t length, void **hva) noexcept nogil:
    if gpa >= memory.regions[1].gpa:  # the higher of the two
        return fr_within(&memory.regions[1], gpa, length, hva)
    return fr_within(&memory.regions[0], gpa, length, hva)

# The way back: which guest address a pointer of fr_translate's is.
cdef inline uint64_t fr_gpa_of(const FrMemory *memory, const void *hva) noexcept nogil:
    cdef uint32_t i
    cdef size_t offset
    for i in range(memory.n_regions):
        offset = <size_t>hva - <size_t>memory.regions[i].hva  # wraps as above
        if offset < memory.regions[i].size:
            return memory.regions[i].gpa + offset
    return 0

# Whether all of a range is RAM, be it in one region or across touching ones.
cdef bint fr_in_ram(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil
# Copy what fr_in_ram has found to be RAM.
cdef void copy_from_ram(const FrMemory *memory, uint64_t gpa, uint8_t *to, uint64_t length) noexcept nogil


cdef class MemoryMap:
    cdef FrMemory memory
    cdef Py_buffer exports[FR_MAX_REGIONS]  # each held until close: a mapping cannot go while we point into it
    cdef Py_ssize_t users                   # open rings and living views
    cdef bint closed
    cdef int add_region(self, object gpa, object buffer) except -1
    cdef void release_exports(self) noexcept
    cdef uint64_t checked(self, object gpa, uint64_t length) except? 0


# A memoryview of a stretch; while it lives, the map cannot be closed.
cdef object new_view(MemoryMap memory, void *hva, size_t length, bint readonly)
