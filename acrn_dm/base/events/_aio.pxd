# Eventfds signalled by the kernel, also without the GIL: one thread at a time uses a KernelSignal.

cdef extern from "<linux/aio_abi.h>" nogil:
    ctypedef unsigned long aio_context_t


cdef class KernelSignal:
    cdef aio_context_t _context
    cdef int _null
    cdef int _unread
    # Add 1 to the count of *eventfd*; 0, or an errno.
    cdef int signal_fd(self, int eventfd) noexcept nogil
    cdef void _read_completions(self) noexcept nogil
