# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The interface of block engines; see ``_engine.pxd`` for what each function promises."""

from cpython.exc cimport PyErr_SetFromErrno

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initval, int flags)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK


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
