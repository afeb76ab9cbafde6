# What the two planes of a pair share: the descriptor they move frames on, and what it is watched for.

from acrn_dm.base.events._poll cimport EventPoll
from acrn_dm.devices.virtio_net.native._port cimport PacketPort
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint32_t


cdef class NetLink:
    cdef readonly PacketPort port
    cdef EventPoll poll
    cdef Plane tx             # None while there is no such queue
    cdef Plane rx
    cdef uint32_t events      # what the descriptor is watched for
    cdef bint watched         # it is
    cdef bint up              # the interface is there
    cdef bint resting         # the driver does not use the pair: nothing is read
    cdef bint losing          # what comes is lost: without a link, or a receive queue
    cdef bint cut             # there is no link: what the driver sends is lost, too
    cdef bint blocked         # frames wait in the transmit queue until there is room
    cdef bint starved         # frames wait in the descriptor until there are buffers
    cdef int error            # why the interface is gone

    # Watch the descriptor for what the queues wait for.
    cdef void follow(self) noexcept nogil
    # The descriptor failed for good, with a positive errno; Python is told.
    cdef void lost(self, int error) noexcept nogil
    # One of the planes has moved frames: see to the other, where there is no descriptor to say so.
    cdef void moved(self) noexcept nogil

    cdef void _turn(self, uint32_t events) noexcept nogil
    cdef void _lose(self) noexcept nogil


# Whether *error*, a positive errno, means that the interface was deleted.
cdef bint net_gone(int error) noexcept nogil
