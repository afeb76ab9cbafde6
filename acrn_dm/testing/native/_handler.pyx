# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A C handler of an event loop, which counts its calls and does what a test wants of it."""

from acrn_dm.base.events._poll cimport EventPoll
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport write as c_write

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN


cdef int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef class CHandler:
    """A handler of *fd*, watched by edge, on the loop whose set is *poll*, until ``remove`` of that loop.

    Each call adds 1 to the eventfd *signals*, takes *busy_ns*, asks for another turn as often as *again* says (-1: each
    time), and lets Python's handler be called if *asks*.
    """

    cdef EventPoll _poll
    cdef int _fd
    cdef int _signals
    cdef int _again
    cdef bint _asks
    cdef int64_t _busy_ns
    cdef readonly uint64_t entered
    cdef readonly uint64_t left

    def __init__(self, EventPoll poll not None, int fd, *, int signals=-1, int again=0, bint asks=False,
                 int64_t busy_ns=0):
        self._poll, self._fd, self._signals, self._again = poll, fd, signals, again
        self._asks, self._busy_ns = asks, busy_ns
        poll.add_native(fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_called, <void *>self, self)


cdef void _called(CHandler self, uint32_t events) noexcept nogil:
    cdef int64_t end = now_ns() + self._busy_ns
    cdef uint64_t one = 1
    self.entered += 1
    while self._busy_ns and now_ns() < end:
        pass
    if self._signals >= 0:
        c_write(self._signals, &one, sizeof(one))
    if self._asks:
        self._poll.ask(self._fd)
    if self._again:
        self._again -= self._again > 0
        self._poll.again(self._fd)
    self.left += 1
