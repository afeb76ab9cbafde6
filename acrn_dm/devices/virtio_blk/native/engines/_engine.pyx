# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The interface of block engines; see ``_engine.pxd`` for what each function promises."""

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint64_t
from posix.unistd cimport read as c_read

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initval, int flags)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd *fds, unsigned long n, int timeout)


cdef void engine_wait(BlkEngine engine, double seconds) noexcept nogil:
    cdef pollfd waits
    cdef uint64_t count
    waits.fd, waits.events, waits.revents = engine.event_fd, POLLIN, 0
    if not engine.arm():
        poll(&waits, 1, <int>(1000 * seconds) + 1)
    c_read(engine.event_fd, &count, sizeof(count))  # never blocks


cdef class BlkEngine:
    """An engine; this one executes nothing."""

    def __cinit__(self, *args, **kwargs):
        self.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.event_fd < 0:
            PyErr_SetFromErrno(OSError)

    cdef void submit(self, BlkIo *io) noexcept nogil:
        pass

    cdef void commit(self) noexcept nogil:
        pass

    cdef BlkIo *reap(self) noexcept nogil:
        return NULL

    cdef bint arm(self) noexcept nogil:
        return False

    cdef void cancel(self) noexcept nogil:
        self.cancelled = True

    def close(self):
        """End it; nothing may be in flight. Again is harmless."""
