# A descriptor chain after the walk, whatever ring it came from: segments in C, bytes to Python.

from acrn_dm.ring.native._memory cimport FrSegment, MemoryMap
from acrn_dm.ring.native._records cimport FrChain, FrVirtqueue
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    FR_INLINE_SEGMENTS = 4                  # chains up to this long need no allocation of their own


cdef class RingBase:
    cdef MemoryMap memory                   # keeps every pointer of the ring valid
    cdef bint closed
    cdef FrVirtqueue queue                  # filled in by the format's class
    cdef int open(self, MemoryMap memory) except -1
    cdef FrVirtqueue *virtqueue(self) noexcept


cdef class Chain:
    cdef RingBase ring
    cdef FrChain chain
    cdef FrSegment few[FR_INLINE_SEGMENTS]
    cdef uint32_t cursor                    # next byte of the readable part
    cdef uint32_t filled                    # bytes of the writable part written so far
    cdef bint done                          # pushed or given back
    cdef list views                         # handed out so far; None until the first
    cdef int check(self) except -1
    cdef int finish(self) except -1
    cdef int copy(self, FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) except -1
    cdef list windows(self, FrSegment *segments, uint32_t n, uint32_t total, object offset, object length, bint ro)


# A chain of *ring* of its own, out of a batch, whose arrays the next batch reuses.
cdef Chain new_chain(RingBase ring, const FrChain *source)
