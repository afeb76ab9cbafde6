# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
"""The plane of an entropy queue: buffers are filled by getrandom(2) where they lie, without the GIL."""

from acrn_dm._fastring cimport FrBatch, FrChain
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint32_t

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *buffer, size_t length, unsigned flags)
    unsigned GRND_NONBLOCK

cdef enum:
    CHUNK = 4096              # bytes for one buffer at most; fewer than it holds are allowed (5.4.6.1)
    CHAINS = 32               # of a batch: so it takes less than a millisecond, and other queues have their turn


cdef uint32_t fill(const FrChain *chain) noexcept nogil:
    """Random bytes for the writable part of *chain*; how many. The lengths are the ring's, checked, and no guest's."""
    cdef uint32_t i
    cdef uint32_t done = 0
    cdef ssize_t got
    for i in range(chain.n_out, chain.n_out + chain.n_in):
        if done == CHUNK:
            break
        got = getrandom(chain.segments[i].hva, min(chain.segments[i].len, <size_t>(CHUNK - done)), GRND_NONBLOCK)
        if got <= 0:
            break
        done += <uint32_t>got
    return done


cdef class RngPlane(Plane):
    """Each chain comes back at once with up to CHUNK random bytes."""

    cdef uint32_t room(self) noexcept nogil:
        return CHAINS

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        for i in range(batch.n_chains):
            self.complete(batch.chains[i].head, fill(&batch.chains[i]))
        return <int>batch.n_chains
