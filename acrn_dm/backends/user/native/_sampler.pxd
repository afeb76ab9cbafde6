# The thread's part of a watch: see ``watch.py``.

from acrn_dm._fastring cimport FrTally
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum Wakened:            # by what
    BY_TIME
    BY_KICK
    BY_STOP


cdef class Sampler:
    cdef object _owners       # keep what follows
    cdef FrTally **_tallies
    cdef int *_kicks          # eventfds, one for each
    cdef uint32_t _n
    cdef int64_t _most        # ns between two looks
    cdef int _epoll           # of the kicks and *_stop*
    cdef int _stop
    cdef bint _listens        # to kicks
    cdef readonly uint64_t samples
    cdef readonly uint64_t dozes          # times that a kick was waited for
    cdef readonly uint64_t kicks          # ... and came
    cdef bint add(self, int fd, uint32_t events, uint64_t what) noexcept nogil
    cdef bint listen(self, bint on) noexcept nogil
    cdef uint32_t look(self, bint late) noexcept nogil
    cdef bint kicks_come(self) noexcept nogil
    cdef Wakened pause(self, int64_t ns) noexcept nogil
    cdef Wakened doze(self, int ms) noexcept nogil
    cdef void go(self) noexcept nogil
