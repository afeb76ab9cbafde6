# Rings as Python sees them: what both formats do alike, and a class for each.

from acrn_dm.ring.native._chain cimport RingBase
from acrn_dm.ring.native._memory cimport MemoryMap
from acrn_dm.ring.native._records cimport FrBatch, FrOverlay, FrPacked, FrRing
from libc.stdint cimport uint32_t


cdef class NativeRing(RingBase):
    cdef FrBatch batch
    cdef bint walking                       # a thread is in the walk, without the GIL
    cdef object overlay                     # who has what stands before the ring; None: nothing does
    cdef int lay(self, FrOverlay *overlay, object owner) except -1
    cdef int take_off(self) except -1
    cdef int begin(self, FrRing *ring, MemoryMap memory, object layout, bint event_idx, bint indirect) except -1
    cdef int make_room(self, FrRing *ring) except -1


cdef class SplitRing(NativeRing):
    cdef FrRing ring


cdef class PackedRing(NativeRing):
    cdef FrPacked packed
