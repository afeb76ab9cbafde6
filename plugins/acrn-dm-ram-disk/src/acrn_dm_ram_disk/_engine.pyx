# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The engine of a RAM disk: it copies, so whatever is submitted has completed at once."""

from acrn_dm.devices.virtio_blk.native.engines._engine cimport BLK_IO_READ, BLK_IO_SYNC, BlkEngine, BlkIo
from libc.errno cimport EIO
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close as c_close


cdef class RamEngine(BlkEngine):
    """The engine of one queue; *memory* is the disk, which all of its engines share."""

    cdef unsigned char[::1] _memory  # keeps the pages where they are
    cdef unsigned char *_first
    cdef uint64_t _size
    cdef BlkIo *_done

    def __cinit__(self, unsigned char[::1] memory not None):
        self._memory, self._first, self._size = memory, &memory[0], <uint64_t>memory.shape[0]

    cdef void submit(self, BlkIo *io) noexcept nogil:
        cdef uint64_t at = io.offset
        cdef uint64_t length
        cdef unsigned i
        io.result = 0
        if io.kind != BLK_IO_SYNC:
            for i in range(io.n_iov):
                length = io.iov[i].len
                if at > self._size or length > self._size - at:
                    io.result = -EIO
                    break
                if io.kind == BLK_IO_READ:
                    memcpy(<void *>io.iov[i].hva, self._first + at, length)
                else:
                    memcpy(self._first + at, <void *>io.iov[i].hva, length)
                at += length
                io.result += <long>length
        io.next, self._done = self._done, io
        self.in_flight += 1

    cdef BlkIo *reap(self) noexcept nogil:
        cdef BlkIo *done = self._done
        self._done = NULL
        self.in_flight = 0
        return done

    cdef bint arm(self) noexcept nogil:
        return self._done != NULL

    def close(self):
        """Let go of the disk."""
        self._memory = None
        if self.event_fd >= 0:
            c_close(self.event_fd)
            self.event_fd = -1
