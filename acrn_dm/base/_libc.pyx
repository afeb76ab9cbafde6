# cython: auto_pickle=False, autotestdict=False
"""The calls of the C library that Python's standard library has not.

ctypes would do, too: importing it takes as long as a tenth of ``--version``.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy, memset, strerror


cdef extern from "<sys/prctl.h>":
    int PR_SET_NO_NEW_PRIVS
    int PR_SET_NAME
    int prctl(int option, ...) nogil

cdef extern from "<fcntl.h>":
    int c_fallocate "fallocate"(int fd, int mode, int64_t offset, int64_t length) nogil


def set_no_new_privs():
    """prctl(2) with PR_SET_NO_NEW_PRIVS. Raises OSError, which no kernel since 3.5 gives reason for."""
    if prctl(PR_SET_NO_NEW_PRIVS, <unsigned long>1, <unsigned long>0, <unsigned long>0, <unsigned long>0) != 0:
        raise OSError(errno, strerror(errno).decode())


def set_thread_name(const unsigned char[::1] name):
    """prctl(2) with PR_SET_NAME, for this thread, as top and perf show it; the kernel keeps 15 bytes."""
    cdef char kept[16]
    memset(kept, 0, sizeof(kept))
    if name.shape[0]:
        memcpy(kept, &name[0], min(<size_t>name.shape[0], sizeof(kept) - 1))
    prctl(PR_SET_NAME, kept)


def fallocate(int fd, int mode, int64_t offset, int64_t length):
    """fallocate(2), without the GIL. Raises OSError."""
    cdef int result
    cdef int err
    with nogil:
        result = c_fallocate(fd, mode, offset, length)
        err = errno
    if result != 0:
        raise OSError(err, strerror(err).decode())


def address_of(unsigned char[::1] buffer):
    """Where the writable *buffer* begins in this process. Whoever asks keeps it: nothing is held."""
    return <uintptr_t>&buffer[0]


def clear(unsigned char[::1] buffer, size_t start, size_t end):
    """Zeros from *start* to *end* of the writable *buffer*, without the GIL. Raises IndexError."""
    if start > end or end > <size_t>buffer.shape[0]:
        raise IndexError(f"{start} to {end} of {buffer.shape[0]} bytes")
    with nogil:
        memset(&buffer[0] + start, 0, end - start)
