# The plane of a receive queue: frames go from the port to guest memory.

from acrn_dm._fastring cimport FrBatch, FrSegment
from acrn_dm.devices.virtio_net.native.frames._filter cimport FrameFilter
from acrn_dm.devices.virtio_net.native.frames._headers cimport NET_MAX_FRAME, NET_MAX_HEADER
from acrn_dm.devices.virtio_net.native._link cimport NetLink
from acrn_dm.devices.virtio_net.steering._hash cimport FrameHash
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    NET_BUFFER = 20 + 65553 + 1  # bytes: one more shows what is too long
    NET_RX_PIECES = 256       # of guest memory in one call

# What became of a frame.
cdef enum NetRxStep:
    NET_MOVED                 # it is in the ring, or was dropped
    NET_NO_FRAME
    NET_NO_BUFFERS            # too few for the one that waits, or for any
    NET_ENDED                 # the port or the ring is broken


cdef class NetRx(Plane):
    cdef NetLink link
    cdef FrameFilter wanted   # None: every frame is
    cdef public FrameHash hashes  # what a report in the header is made by; None: frames have none
    cdef uint64_t features
    cdef uint32_t header      # bytes before each frame
    cdef uint32_t mtu         # 0: none was told to the driver
    cdef readonly uint64_t dropped
    cdef FrBatch posted       # chains taken and not used yet: those from *first* on
    cdef uint32_t first
    cdef uint32_t waiting     # bytes of the frame in *buffer*, header included
    cdef uint32_t expected    # bytes of a large frame to be read into the driver's buffers at once; 0: into *buffer*
    cdef uint32_t used        # chains of this turn
    cdef uint32_t bad         # bytes of a buffer that is too small for the header
    cdef int64_t now          # of this turn
    cdef uint8_t[NET_BUFFER] buffer
    cdef FrSegment[NET_RX_PIECES + 1] pieces

    cdef bint serve(self) noexcept nogil
    cdef int step(self) noexcept nogil
    cdef int fetch(self) noexcept nogil
    cdef bint take_in(self, int64_t got) noexcept nogil
    cdef uint32_t name_posted(self, uint32_t *into) noexcept nogil
    cdef uint32_t looked_at(self) noexcept nogil
    cdef void report(self) noexcept nogil
    cdef bint judge(self) noexcept nogil
    cdef bint unwanted(self) noexcept nogil
    cdef void drop(self) noexcept nogil
    cdef int deliver(self, uint32_t done) noexcept nogil
    cdef int collect(self) noexcept nogil
    cdef bint refill(self, uint32_t limit) noexcept nogil
    cdef void give_back(self) noexcept nogil
