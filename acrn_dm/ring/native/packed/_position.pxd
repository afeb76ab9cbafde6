# How far the two sides of a packed ring are from each other, and how far a walk has come.

from acrn_dm.ring.native._records cimport FrPacked
from acrn_dm.ring.native.packed._layout cimport FR_DESC_F_USED
from libc.stdint cimport uint32_t

# How far ``_pop.pxd`` has come with a chain; beside FR_OK, FR_EMPTY and negative numbers.
cdef enum:
    FP_BEFORE_CHAIN = 2       # not begun
    FP_BEFORE_SLOT = 3        # behind a descriptor with NEXT
    FP_AT_SLOT = 4            # at one that is loaded
    FP_AT_ENTRY = 5           # in the indirect table, at an entry that is loaded

# Whether next_avail is as often round as published_used. If so, what may be taken ends where that is one lap later;
# else it ends there.
cdef inline bint fp_same_lap(const FrPacked *packed) noexcept nogil:
    # AVAIL with both of used descriptors or USED with none: the marks differ in USED. Else they differ in AVAIL.
    return (packed.avail_marks ^ packed.published_marks) & FR_DESC_F_USED != 0

# Descriptors from published_used to next_avail: in flight, or not shown as used. Never more than size.
cdef inline uint32_t fp_taken(const FrPacked *packed) noexcept nogil:
    cdef uint32_t ahead = packed.ring.next_avail - packed.published_used
    return ahead if fp_same_lap(packed) else ahead + packed.ring.size

# *n* descriptors were taken, which may have been seen before.
cdef inline void fp_unsee(FrPacked *packed, uint32_t n) noexcept nogil:
    packed.n_seen -= min(packed.n_seen, n)
