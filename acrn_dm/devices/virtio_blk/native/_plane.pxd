# A disk's queue served without Python: the plane takes chains, the service executes them, an engine moves the data.

from acrn_dm._fastring cimport FrBatch
from acrn_dm.base.events._poll cimport EventPoll
from acrn_dm.devices.virtio_blk.native._service cimport BlkService
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport int64_t, uint32_t

cdef struct BlkLink:          # what the handlers of the engine's eventfd get: the plane itself is the kick's context
    void *plane


cdef class BlkPlane(Plane):
    cdef readonly BlkService service
    cdef EventPoll events
    cdef BlkLink link
    cdef int event_fd         # of the engine; -1: not watched
    cdef bint looking         # the loop looks all the time: the engine need not tell
    cdef int counted          # requests in flight that the loop knows of
    cdef int handle(self, FrBatch *batch) noexcept nogil
    cdef uint32_t room(self) noexcept nogil
    cdef bint turn(self) noexcept nogil
    cdef void count(self) noexcept nogil
