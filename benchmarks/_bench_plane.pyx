# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A plane at full load without a driver: it makes what it returned available again, as fast as it can."""

from acrn_dm._fastring cimport FrBatch, fr_load_u16, fr_store_release_u16, fr_store_u16
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef class Treadmill(Plane):
    """Plays both sides of a split ring whose table has one-descriptor chains: the driver never comes to rest."""

    def fill(self):
        """Make every descriptor available, in order. With the loop held."""
        cdef uint8_t *avail = <uint8_t *>self.vq.split.avail
        cdef uint32_t i
        for i in range(self.vq.split.size):
            fr_store_u16(avail + 4 + 2 * i, i)
        fr_store_release_u16(avail + 2, self.vq.split.size)
        self.wake()

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint8_t *idx = <uint8_t *>self.vq.split.avail + 2
        cdef uint32_t i
        for i in range(batch.n_chains):
            self.complete(batch.chains[i].head, batch.chains[i].in_bytes)
        fr_store_release_u16(idx, <uint16_t>(fr_load_u16(idx) + batch.n_chains))  # heads come round in their order
        self.wake()
        return <int>batch.n_chains
