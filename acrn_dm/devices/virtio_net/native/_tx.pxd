# The plane of a transmit queue: frames go from guest memory to the port.

from acrn_dm._fastring cimport FrBatch, FrChain, FrSegment
from acrn_dm.devices.virtio_net.native.frames._headers cimport NET_MAX_HEADER
from acrn_dm.devices.virtio_net.native._link cimport NetLink
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    NET_SMALL = 2048          # bytes, header included, up to which a copy is cheaper than a call with several pieces
    NET_PIECES = 1024         # IOV_MAX


cdef class NetTx(Plane):
    cdef NetLink link
    cdef uint64_t features
    cdef uint32_t header      # bytes before each frame
    cdef readonly uint64_t dropped
    cdef uint8_t *whole       # for a frame in more pieces than a call takes; NULL until there is one
    cdef uint8_t[NET_SMALL] small
    cdef FrSegment[NET_PIECES] pieces

    cdef int handle(self, FrBatch *batch) noexcept nogil
    cdef uint32_t room(self) noexcept nogil
    cdef bint send(self, const FrChain *chain) noexcept nogil
    cdef int pass_on(self, const FrChain *chain, uint32_t frame) noexcept nogil
    cdef int pass_large(self, const FrChain *chain, uint32_t frame) noexcept nogil
