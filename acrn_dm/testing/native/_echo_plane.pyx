# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A data plane for tests: it copies what a chain says into what that has room for, now or when it is let."""

from acrn_dm._fastring cimport FrBatch, FrChain
from acrn_dm.virtio.native._plane cimport PLANE_BATCH, Plane
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memmove

cdef enum:
    MAX_KEPT = 1024


cdef uint32_t copy(const FrChain *chain) noexcept nogil:
    """From the readable segments to the writable ones; the bytes that there was room for."""
    cdef uint32_t i = 0
    cdef uint32_t j = chain.n_out
    cdef uint32_t end = chain.n_out + chain.n_in
    cdef size_t read = 0
    cdef size_t written = 0
    cdef size_t step
    cdef uint32_t total = 0
    while i < chain.n_out and j < end:
        step = min(chain.segments[i].len - read, chain.segments[j].len - written)
        memmove(<uint8_t *>chain.segments[j].hva + written, <uint8_t *>chain.segments[i].hva + read, step)
        read += step
        written += step
        total += <uint32_t>step
        if read == chain.segments[i].len:
            i, read = i + 1, 0
        if written == chain.segments[j].len:
            j, written = j + 1, 0
    return total


cdef class EchoPlane(Plane):
    """Returns each chain with what it said. ``keeps``: not before ``release``; ``most``: that many more are taken, the
    rest stays in the ring until ``release``; ``limit``: of a batch; ``fails``: the next chain is the end of the queue,
    with this number.
    """

    cdef public bint keeps
    cdef public int fails
    cdef public int most
    cdef public uint32_t limit
    cdef readonly uint32_t n_kept
    cdef uint16_t[MAX_KEPT] _heads
    cdef uint32_t[MAX_KEPT] _written
    cdef uint32_t _kept_by

    def __cinit__(self):
        self.most = -1
        self.limit = PLANE_BATCH

    def release(self):
        """Complete what is kept, of whichever driver. On the loop's thread, or with the loop held."""
        for i in range(self.n_kept):
            self.complete_of(self._kept_by, self._heads[i], self._written[i])
        self.n_kept = 0
        self.flush()
        self.wake()

    def return_twice(self, uint16_t head):
        """Do what a device must not."""
        self.complete(head, 0)

    def failure(self, int status):
        """The device's own number has its own text."""
        return OSError(-status, "the host") if status == self.fails else Plane.failure(self, status)

    cdef uint32_t room(self) noexcept nogil:
        return self.limit

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        cdef uint32_t n = batch.n_chains
        cdef uint32_t written
        if self.fails:
            return self.fails
        if self.most >= 0:
            n = min(n, <uint32_t>self.most)
            self.most -= <int>n
        for i in range(n):
            written = copy(&batch.chains[i])
            if self.keeps and self.n_kept < MAX_KEPT:
                self._kept_by = self.generation
                self._heads[self.n_kept] = batch.chains[i].head
                self._written[self.n_kept] = written
                self.n_kept += 1
            else:
                self.complete(batch.chains[i].head, written)
        return <int>n
