# cython: auto_pickle=False, autotestdict=False
"""A relay of calls from a queue's eventfd to the one that the client gave for its vector, on a loop and without Python.

The client's eventfd is shared, so that the kernel signals it (``base.events.eventfd`` says why).
"""

from acrn_dm.base.process._pthread cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from acrn_dm.base.events._aio cimport KernelSignal
from acrn_dm.base.events._poll cimport EPOLLIN, EventPoll
from libc.stdint cimport uint32_t, uint64_t
from posix.unistd cimport close as c_close, dup, read as c_read

from cpython.exc cimport PyErr_SetFromErrno

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET


cdef class Signaller:
    """The way to signal that all relays of a function share, one at a time."""

    cdef KernelSignal _kernel
    cdef pthread_mutex_t _lock            # a leaf, for one signal at a time

    def __cinit__(self):
        pthread_mutex_init(&self._lock, NULL)

    def __init__(self):
        """Raises OSError as ``KernelSignal``."""
        self._kernel = KernelSignal()

    def __dealloc__(self):
        pthread_mutex_destroy(&self._lock)


cdef class CallRelay:
    """The relay of one queue's call, from *source* to *target*, both of which stay the caller's. Raises OSError.

    It may be watched later than it is made, and longer than it is wanted: ``end`` is what counts.
    """

    cdef Signaller _signaller
    cdef int _source
    cdef int _target
    cdef bint _ended
    cdef readonly uint64_t passed         # calls

    def __cinit__(self):
        self._source = self._target = -1

    def __init__(self, Signaller signaller not None, int source, int target):
        self._signaller = signaller
        self._source, self._target = dup(source), dup(target)
        if self._source < 0 or self._target < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self._source >= 0:
            c_close(self._source)
        if self._target >= 0:
            c_close(self._target)

    def watch(self, EventPoll poll not None):
        """Pass on what is written from now on, and what was before. Raises OSError."""
        if not self._ended:
            poll.add_native(self._source, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_called,
                            <void *>self, self)

    def unwatch(self, EventPoll poll not None):
        """The opposite."""
        poll.remove_native(self._source)

    def end(self):
        """Pass on what was written until now, and nothing any more when this returns. Any thread; never waits long."""
        with nogil:
            self._pass()
            self._ended = True
            pthread_mutex_unlock(&self._signaller._lock)

    cdef void _pass(self) noexcept nogil:
        """Returns with the lock held."""
        cdef uint64_t count = 0
        pthread_mutex_lock(&self._signaller._lock)
        if not self._ended and c_read(self._source, &count, sizeof(count)) == sizeof(count):
            self._signaller._kernel.signal_fd(self._target)
            self.passed += 1


cdef void _called(CallRelay self, uint32_t events) noexcept nogil:
    self._pass()
    pthread_mutex_unlock(&self._signaller._lock)
