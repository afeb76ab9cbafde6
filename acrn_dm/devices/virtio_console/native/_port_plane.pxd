# The planes of a port: one for each of its queues. Either moves bytes between chains and a descriptor until something
# needs thought: a slow reader, an end, an error. Then Python has the ring, until it gives it back with ``go``.

from acrn_dm._fastring cimport FrBatch, FrChain
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint32_t, uint64_t


cdef class PortPlane(Plane):
    cdef object pump                      # what Python does with the ring
    cdef int fd                           # -1: nobody is at the other end
    cdef readonly bint by_python          # Python moves the bytes
    cdef bint armed                       # ... and wants to hear of the next chain
    cdef bint handing                     # ... and has not been told yet

    cdef void hand_over(self) noexcept nogil
    cdef int move(self, FrBatch *batch) noexcept nogil
    cdef uint32_t ready_for(self) noexcept nogil


cdef class TxPlane(PortPlane):
    cdef readonly uint64_t discarded      # bytes that went to nobody
    cdef uint32_t written                 # of the chain that is next, when Python gets the ring

    cdef bint _write(self, FrChain *chain) noexcept nogil


cdef class RxPlane(PortPlane):
    cdef readonly bint waiting            # there is a buffer, and no input
    cdef int watched                      # a duplicate of fd, that the poll watches for input
