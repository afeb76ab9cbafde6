# cython: auto_pickle=False, autotestdict=False
"""Eventfds signalled by the kernel: as the completion of a Linux AIO request that does nothing.

``write`` waits for room where an eventfd is full and its file is a blocking one, which whoever shares it can bring
about between any look and the write. The kernel's own ``eventfd_signal`` never waits; a completed request with
IOCB_FLAG_RESFD calls it. Reading no bytes from /dev/null completes within ``io_submit``; and it is opened for reading,
which sandboxes leave to their processes (``base.sandbox``), as they do these calls.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open as c_open
from posix.time cimport timespec
from posix.unistd cimport close as c_close

import os


cdef extern from "<linux/aio_abi.h>" nogil:
    enum:
        IOCB_CMD_PREAD
        IOCB_FLAG_RESFD

    struct iocb:
        uint16_t aio_lio_opcode
        uint32_t aio_fildes
        uint32_t aio_flags
        uint32_t aio_resfd

    struct io_event:
        uint64_t data
        uint64_t obj
        int64_t res
        int64_t res2


cdef extern from "<sys/syscall.h>" nogil:
    long SYS_io_setup
    long SYS_io_destroy
    long SYS_io_submit
    long SYS_io_getevents


cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)


cdef enum:
    SLOTS = 64  # completions that may lie unread


cdef class KernelSignal:
    """One AIO context. ``signal`` holds the GIL, which keeps threads apart; it takes one system call, which does not
    sleep. ``signal_fd`` does without, for who keeps threads apart himself.
    """

    def __cinit__(self):
        self._context = 0
        self._null = -1
        self._unread = 0

    def __init__(self):
        """Raises OSError: EAGAIN where the host has no contexts left (fs.aio-max-nr), ENOSYS, EPERM, EMFILE."""
        if self._null >= 0:
            raise ValueError("made already")
        self._null = c_open("/dev/null", O_RDONLY | O_CLOEXEC)
        if self._null < 0 or syscall(SYS_io_setup, <long>SLOTS, &self._context) < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self._context:
            syscall(SYS_io_destroy, self._context)
        if self._null >= 0:
            c_close(self._null)

    def signal(self, int eventfd):
        """Add 1 to the count, up to the highest there is, and wake whoever waits. Raises OSError (EBADF, EINVAL)."""
        cdef int err = self.signal_fd(eventfd)
        if err:
            raise OSError(err, os.strerror(err))

    cdef int signal_fd(self, int eventfd) noexcept nogil:
        cdef iocb request
        cdef iocb *requests = &request
        cdef int _attempt
        memset(&request, 0, sizeof(request))
        request.aio_lio_opcode = IOCB_CMD_PREAD
        request.aio_fildes = <uint32_t>self._null
        request.aio_flags = IOCB_FLAG_RESFD
        request.aio_resfd = <uint32_t>eventfd
        for _attempt in range(4):
            if self._unread >= SLOTS // 2:
                self._read_completions()
            if syscall(SYS_io_submit, self._context, <long>1, &requests) == 1:
                self._unread += 1
                return 0
            if errno != EAGAIN and errno != EINTR:
                break
            self._unread = SLOTS
        return errno

    cdef void _read_completions(self) noexcept nogil:
        """Make room for more; all of them are there already."""
        cdef io_event[SLOTS] events
        cdef timespec now
        memset(&now, 0, sizeof(now))
        syscall(SYS_io_getevents, self._context, <long>0, <long>SLOTS, &events[0], &now)
        self._unread = 0
