# The limits of one disk in operations and bytes a second: leaky buckets, which all of its queues pour into.

from acrn_dm.base.process._pthread cimport pthread_mutex_t
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    BLK_BUCKETS = 6           # operations, bytes; of each: both directions together, reads, writes

cdef struct BlkBucket:        # units: operations or bytes
    double rate               # a second; 0: no limit
    double burst              # a second, while a burst lasts; 0: none
    double seconds            # that a burst may last
    double level              # poured in and not yet leaked at *rate*
    double burst_level        # the same at *burst*


cdef class BlkThrottle:
    cdef readonly bint active             # there is a limit
    cdef readonly uint64_t generation     # counts changes of the limits
    cdef pthread_mutex_t lock             # of what follows
    cdef BlkBucket buckets[BLK_BUCKETS]
    cdef double operation                 # bytes that count as one operation; 0: any number does
    cdef int64_t at                       # ns (CLOCK_MONOTONIC): the levels are those of then
    # Pour in a read or *write* of *n_bytes* (0: of none that count) at *now*; returns when it may begin. Any thread.
    cdef int64_t pour(self, bint write, uint64_t n_bytes, int64_t now) noexcept nogil
    # Take one out again that will not begin. Any thread.
    cdef void unpour(self, bint write, uint64_t n_bytes) noexcept nogil
