# Guest memory as the rings see it: regions, the one translation of a guest address, and Python's map of them.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>":
    # A translated stretch of a guest buffer. It is a struct iovec, so a run of them goes to readv and writev as it is.
    ctypedef struct FrSegment "struct iovec":
        void *hva "iov_base"
        size_t len "iov_len"

cdef enum:
    FR_MAX_REGIONS = 8        # of them are scanned linearly, which beats every tree at this number
    FR_MAX_OTHERS = 1 << 16   # ... the others are looked for by bisection

cdef struct FrRegion:
    uint64_t gpa
    uint64_t size
    uint8_t *hva

# A region that is not among the eight: small ones of a guest behind an IOMMU, and what the device may only read.
cdef struct FrOther:
    FrRegion place
    bint readonly

# A region once more, as one that whole buffers are looked for in: with no more instructions than that needs.
cdef struct FrSpan:
    uint64_t first            # gpa of the first byte
    uint64_t last             # ... and of the last one, for the end may be 2^64
    uint64_t ahead            # by how much pointers are ahead of guest addresses, modulo 2^64

cdef struct FrMemory:
    FrSpan low                # the two largest writable regions; one that there is not holds nothing
    FrSpan high
    uint32_t n_regions
    uint32_t n_joints         # pairs of regions that touch: how often one buffer can be split
    FrRegion regions[FR_MAX_REGIONS]  # by size, the largest first, but of the first two that with the lower gpa
    FrOther *others           # by gpa
    uint32_t n_others
    uint32_t n_readonly       # of these

# The one of *others* that has a guest address; NULL where there is none.
cdef const FrOther *fr_other(const FrMemory *memory, uint64_t gpa) noexcept nogil

# One guest address becomes a pointer here and nowhere else. NULL outside RAM; *room* is how far the pointer is good.
cdef inline void *fr_translate(const FrMemory *memory, uint64_t gpa, uint64_t *room) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t offset
    cdef const FrOther *other
    for i in range(memory.n_regions):
        # Below the region's base the subtraction wraps to a huge offset, so one comparison checks both ends.
        offset = gpa - memory.regions[i].gpa
        if offset < memory.regions[i].size:
            room[0] = memory.regions[i].size - offset
            return memory.regions[i].hva + offset
    if fr_unlikely(memory.n_others != 0):
        other = fr_other(memory, gpa)
        if other != NULL:
            offset = gpa - other.place.gpa
            room[0] = other.place.size - offset
            return other.place.hva + offset
    room[0] = 0
    return NULL

cdef inline bint fr_ends_within(const FrSpan *span, uint64_t gpa, uint64_t length, void **hva) noexcept nogil:
    # Of a buffer that is empty, and of one that goes past 2^64, the last byte is before the first.
    cdef uint64_t last = gpa + (length - 1)
    if fr_unlikely(last < gpa):
        return False
    if fr_unlikely(last > span.last):
        return False
    hva[0] = <void *>(gpa + span.ahead)
    return True

# Whether all of a buffer, which is not empty, lies in one of the two largest regions; *hva* then is where. Where this
# says no, fr_translate knows more.
cdef inline bint fr_whole(const FrMemory *memory, uint64_t gpa, uint64_t length, void **hva) noexcept nogil:
    if gpa >= memory.high.first:
        return fr_ends_within(&memory.high, gpa, length, hva)
    if fr_unlikely(gpa < memory.low.first):
        return False
    return fr_ends_within(&memory.low, gpa, length, hva)

# The way back: which guest address a pointer of fr_translate's is.
cdef inline uint64_t fr_gpa_of(const FrMemory *memory, const void *hva) noexcept nogil:
    cdef uint32_t i
    cdef size_t offset
    for i in range(memory.n_regions):
        offset = <size_t>hva - <size_t>memory.regions[i].hva  # wraps as above
        if offset < memory.regions[i].size:
            return memory.regions[i].gpa + offset
    for i in range(memory.n_others):
        offset = <size_t>hva - <size_t>memory.others[i].place.hva
        if offset < memory.others[i].place.size:
            return memory.others[i].place.gpa + offset
    return 0

# Whether all of a range is RAM, be it in one region or across touching ones.
cdef bint fr_in_ram(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil
# Whether a device may write to all of a range that is RAM.
cdef bint fr_writable(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil
# Copy what fr_in_ram has found to be RAM.
cdef void copy_from_ram(const FrMemory *memory, uint64_t gpa, uint8_t *to, uint64_t length) noexcept nogil


cdef class MemoryMap:
    cdef FrMemory memory
    cdef Py_buffer *exports                 # each held until close: a mapping cannot go while we point into it
    cdef Py_ssize_t n_exports
    cdef Py_ssize_t users                   # open rings and living views
    cdef bint closed
    cdef int make_room(self, Py_ssize_t n_regions, Py_ssize_t n_others) except -1
    cdef int export(self, FrRegion *region, object gpa, object buffer, int flags) except -1
    cdef int add_others(self, list others) except -1
    cdef int refuse_overlaps(self) except -1
    cdef void release_exports(self) noexcept
    cdef uint64_t checked(self, object gpa, uint64_t length) except? 0


# A memoryview of a stretch; while it lives, the map cannot be closed.
cdef object new_view(MemoryMap memory, void *hva, size_t length, bint readonly)
