# Where a card's frames go to and come from, one call a frame: a descriptor, or what derives from this class.

from acrn_dm._fastring cimport FrSegment
from libc.stdint cimport int64_t, uint32_t


cdef class PacketPort:
    cdef readonly int fd                # that is readable, or writable again; -1: there is none, see ``ready``
    cdef readonly bint vnet_header      # frames come and go with a packet header before them
    cdef bint ready                     # without a descriptor: ``receive`` has something

    # Send one frame, header first, in *n* pieces; 0, or a negative errno: EAGAIN while there is no room. The pieces are
    # guest memory, which may change meanwhile.
    cdef int send(self, const FrSegment *pieces, uint32_t n) noexcept nogil
    # Put the next frame into the *n* pieces, cut if it is longer; its bytes, or a negative errno: EAGAIN without one.
    cdef int64_t receive(self, const FrSegment *pieces, uint32_t n) noexcept nogil
