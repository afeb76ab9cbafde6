# cython: auto_pickle=False, autotestdict=False
"""Device files and their ioctls: the one place where a driver's file is opened, called and closed.

KVM, ACRN's module and the kernel's vhost derive from ``DeviceFile``; what the calls mean is theirs.
"""

from acrn_dm.base.errors import HostError

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdlib cimport calloc
from posix.fcntl cimport O_CLOEXEC, O_RDWR, open as c_open
from posix.unistd cimport close as c_close


cdef extern from "<sys/ioctl.h>":
    int ioctl(int fd, unsigned long request, ...) nogil


def _plainly(str call, int err):
    return HostError(call, err=err)


cdef int control(int fd, unsigned long request, void *argument) noexcept nogil:
    """The ioctl: its result, or minus errno. For loops without the GIL; others have ``DeviceFile``'s methods."""
    cdef int result = ioctl(fd, request, argument)
    return result if result >= 0 else -errno


cdef void *zeroed(size_t size) except NULL:
    """Memory for a structure that ends in an array; to be given back with ``free``."""
    cdef void *memory = calloc(1, size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef class DeviceFile:
    """A driver's open file: owns the descriptor, which is -1 when closed; every ioctl then answers EBADF.

    A call that may sleep releases the GIL; the caller keeps ``close`` from running meanwhile. A short one keeps it, as
    getting it back would take longer: any thread may make it any time.
    """

    def __cinit__(self):
        self.fd = -1
        self.failed = _plainly

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def close(self):
        """Close the descriptor, which takes everything back from the kernel. Idempotent."""
        cdef int fd = self.fd
        self.fd = -1  # first: while it is being closed the number may become another file's
        if fd >= 0:
            with nogil:  # waits for what the driver has running
                c_close(fd)

    cdef int open_path(self, str path) except -1:
        """Open *path* for reading and writing. HostError of "open PATH"."""
        cdef int fd = c_open(path.encode(), O_RDWR | O_CLOEXEC)
        cdef int err = errno
        if fd < 0:
            raise self.failed(f"open {path}", err)
        self.fd = fd
        return 0

    cdef int attempt(self, unsigned long request, void *argument) noexcept:
        """An ioctl that may sleep: its result, or minus errno."""
        cdef int result
        with nogil:
            result = control(self.fd, request, argument)
        return result

    cdef int attempt_short(self, unsigned long request, void *argument) noexcept:
        """A short ioctl: its result, or minus errno."""
        return control(self.fd, request, argument)

    cdef int call(self, str name, unsigned long request, void *argument) except -1:
        """An ioctl that may sleep and is made again after a signal (PEP 475); HostError of *name* if it fails."""
        cdef int result = self.attempt(request, argument)
        while result == -EINTR:
            PyErr_CheckSignals()
            result = self.attempt(request, argument)
        if result < 0:
            raise self.failed(name, -result)
        return result

    cdef int call_value(self, str name, unsigned long request, unsigned long argument) except -1:
        """As ``call``; the argument is a number, not an address."""
        return self.call(name, request, <void *>argument)
