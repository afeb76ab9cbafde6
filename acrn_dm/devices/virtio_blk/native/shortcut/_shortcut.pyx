# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Transfers that need no engine: what the page cache holds is read at once, and written where the file system can say
that a write would wait. A file in memory is read through a mapping.

A call that was refused (it would have waited) is not tried again for a while, the longer the more in a row were.
"""

from acrn_dm._fastring cimport FrSegment
from acrn_dm.devices.virtio_blk.image._standing cimport Standing
from acrn_dm.devices.virtio_blk.native.shortcut._mapping cimport mapping_close, mapping_open, mapping_read
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>" nogil:
    enum:
        RWF_DSYNC
        RWF_NOWAIT
    int64_t preadv2(int fd, const FrSegment *iov, int n, int64_t offset, int flags)
    int64_t pwritev2(int fd, const FrSegment *iov, int n, int64_t offset, int flags)

cdef enum:
    MAX_SKIP = 63


cdef inline bint tries(Luck *luck) noexcept nogil:
    if luck.none:
        return False
    if luck.skip > 0:
        luck.skip -= 1
        return False
    return True


cdef inline bint went(Luck *luck, int64_t moved, uint32_t length) noexcept nogil:
    """Whether a call that may be refused has moved everything; what it moved of it is moved again."""
    if moved == length:
        luck.misses = 0
        return True
    luck.none = moved < 0 and errno != EAGAIN  # there are no such calls; a real error shows in the engine
    luck.misses = min(2 * luck.misses + 1, <uint32_t>MAX_SKIP)
    luck.skip = luck.misses
    return False


cdef class BlkShortcut:
    """The shortcut of one queue to file *fd*, whose *standing* is the image's. Without *cached* there is none
    (O_DIRECT). *maps*: the file may be mapped, if it is *in_memory*.
    """

    def __cinit__(self, Standing standing not None, int fd, *, bint cached, bint in_memory, bint maps):
        self.standing, self.known = standing, &standing.state
        self.fd, self.in_memory = fd, in_memory
        self.reads.none = self.writes.none = not cached
        if in_memory and maps:
            mapping_open(&self.mapping, fd, self.known.end)

    def __dealloc__(self):
        mapping_close(&self.mapping)

    @property
    def mapped(self):
        """Whether the file is mapped."""
        return self.mapping.base != NULL

    def close(self):
        """Give the mapping back. Nothing is done here from now on. Idempotent."""
        mapping_close(&self.mapping)
        self.reads.none = self.writes.none = True
        self.in_memory = False

    cdef bint read(
        self, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, bint deep
    ) noexcept nogil:
        cdef bint done = False
        if self.mapping.base != NULL and mapping_read(&self.mapping, segments, n, offset, length, self.known.punches):
            done = True
        elif self.in_memory:
            done = preadv2(self.fd, segments, <int>n, <int64_t>offset, 0) == length
        elif not deep and tries(&self.reads):
            done = went(&self.reads, preadv2(self.fd, segments, <int>n, <int64_t>offset, RWF_NOWAIT), length)
        self.taken += done
        return done

    cdef bint write(
        self, const FrSegment *segments, uint32_t n, uint64_t offset, uint32_t length, bint durable
    ) noexcept nogil:
        cdef bint done = False
        if self.in_memory:
            done = pwritev2(self.fd, segments, <int>n, <int64_t>offset, RWF_DSYNC if durable else 0) == length
        elif not durable and tries(&self.writes):
            done = went(&self.writes, pwritev2(self.fd, segments, <int>n, <int64_t>offset, RWF_NOWAIT), length)
        self.taken += done
        return done
