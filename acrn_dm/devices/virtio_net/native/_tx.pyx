# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The plane of a transmit queue. While the port takes no more, frames wait in the driver's ring."""

from acrn_dm.devices.virtio_net.native.frames._headers cimport NET_MAX_FRAME, NET_MIN_FRAME, net_clean_header
from acrn_dm.devices.virtio_net.native._link cimport net_gone
from acrn_dm.virtio.native._segments cimport gather, name_rest
from libc.errno cimport EAGAIN, ENOMEM
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef enum:
    BATCH = 64                # chains at once
    BYTES = 128 << 10         # of a batch, after which its rest waits: large frames take long


cdef class NetTx(Plane):
    """The plane of *link*'s transmit queue, under a driver that negotiated *features*, with *header* bytes before each
    frame.

    Small frames are copied behind their header and written by one plain call, which is cheaper than a vectored one by
    more than the copy; large ones go from where they lie. The header is read once: what was judged is what is sent.
    """

    def __cinit__(self, NetLink link not None, uint64_t features, uint32_t header):
        if header > NET_MAX_HEADER:
            raise ValueError(f"a packet header of {header} bytes")
        self.link, self.features, self.header = link, features, header

    def __dealloc__(self):
        free(self.whole)

    def stop(self):
        """As ``Plane.stop``; the port is not watched for this queue any more."""
        Plane.stop(self)
        self.link.follow()

    cdef uint32_t room(self) noexcept nogil:
        return 0 if self.link.blocked else BATCH

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t moved = 0
        cdef int taken = <int>batch.n_chains
        for i in range(batch.n_chains):
            if not self.send(&batch.chains[i]):
                self.link.blocked = True
                taken = <int>i
                break
            self.complete(batch.chains[i].head, 0)  # nothing was written into guest memory
            moved += batch.chains[i].out_bytes
            if moved >= BYTES:
                taken = <int>i + 1
                break
        self.link.moved()
        if self.link.blocked:
            self.link.follow()
        return taken

    cdef bint send(self, const FrChain *chain) noexcept nogil:
        """Send a frame, or drop one that can't be sent; false when the port takes no more now."""
        cdef uint32_t frame = chain.out_bytes - self.header
        cdef int error
        if chain.out_bytes < self.header + NET_MIN_FRAME or frame > NET_MAX_FRAME or not self.link.up or self.link.cut:
            self.dropped += 1
            return True
        error = -self.pass_on(chain, frame)
        if error == EAGAIN:
            return False
        if error != 0:
            self.dropped += 1
        if net_gone(error):
            self.link.lost(error)
        return True

    cdef int pass_on(self, const FrChain *chain, uint32_t frame) noexcept nogil:
        """Judge the header of *chain*, send its *frame*: 0, or a negative errno."""
        cdef uint8_t[NET_MAX_HEADER] header
        cdef FrSegment piece
        gather(chain.segments, chain.n_out, 0, header, self.header)
        if not net_clean_header(header, self.header, frame, self.features, self.small):
            return -ENOMEM  # no errno of a port's: it is dropped
        if self.header + frame > NET_SMALL:
            return self.pass_large(chain, frame)
        gather(chain.segments, chain.n_out, self.header, self.small + self.header, frame)
        piece.hva, piece.len = self.small, self.header + frame
        if not self.link.port.vnet_header:
            piece.hva, piece.len = self.small + self.header, frame
        return self.link.port.send(&piece, 1)

    cdef int pass_large(self, const FrChain *chain, uint32_t frame) noexcept nogil:
        """Send the frame behind the header that stands in *small*."""
        cdef uint32_t before = 1 if self.link.port.vnet_header else 0
        cdef uint32_t n
        self.pieces[0].hva, self.pieces[0].len = self.small, self.header
        n = name_rest(chain.segments, chain.n_out, self.header, self.pieces + before, NET_PIECES - before)
        if n <= NET_PIECES - before:
            return self.link.port.send(self.pieces, n + before)
        if self.whole == NULL:
            self.whole = <uint8_t *>malloc(NET_MAX_HEADER + NET_MAX_FRAME)
        if self.whole == NULL:
            return -ENOMEM
        memcpy(self.whole, self.small, self.header)
        gather(chain.segments, chain.n_out, self.header, self.whole + self.header, frame)
        self.pieces[0].hva, self.pieces[0].len = self.whole, self.header + frame
        if not before:
            self.pieces[0].hva, self.pieces[0].len = self.whole + self.header, frame
        return self.link.port.send(self.pieces, 1)
