# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The place where a card's frames go to and come from, in C."""

from libc.errno cimport EINTR, errno

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t n)
    ssize_t write(int fd, const void *buffer, size_t n)

cdef extern from "<sys/uio.h>" nogil:
    ssize_t readv(int fd, const FrSegment *pieces, int n)
    ssize_t writev(int fd, const FrSegment *pieces, int n)


cdef class PacketPort:
    """A non-blocking descriptor that moves one frame per read or write. It stays its owner's.

    One piece goes by ``read`` and ``write``: the calls that take several cost a tenth of a microsecond more.
    """

    def __cinit__(self, int fd, bint vnet_header):
        self.fd = fd
        self.vnet_header = vnet_header

    cdef int send(self, const FrSegment *pieces, uint32_t n) noexcept nogil:
        while True:
            if (write(self.fd, pieces.hva, pieces.len) if n == 1 else writev(self.fd, pieces, <int>n)) >= 0:
                return 0
            if errno != EINTR:
                return -errno

    cdef int64_t receive(self, const FrSegment *pieces, uint32_t n) noexcept nogil:
        cdef ssize_t got
        while True:
            got = read(self.fd, pieces.hva, pieces.len) if n == 1 else readv(self.fd, pieces, <int>n)
            if got >= 0:
                return got
            if errno != EINTR:
                return -errno
