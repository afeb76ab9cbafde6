# The clock of timed loops in C.

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef inline int64_t clock_cost_ns() noexcept nogil:
    """What two readings of the clock in a row differ by, at best."""
    cdef int64_t best = 1000000
    cdef int64_t start
    for _ in range(1000):
        start = now_ns()
        best = min(best, now_ns() - start)
    return best
