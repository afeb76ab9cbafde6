# What the native rings are measured against, in C files of their own, and how their queue is made of one of ours.

from acrn_dm._fastring cimport FrMemory, FrRing
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_ring_peers.h" nogil:
    struct peer_region:
        pass
    struct peer_sums:
        uint64_t addresses
        uint64_t lengths
    struct peer_queue:
        const peer_region *regions
        uint32_t n_regions
        uint32_t size
        uint8_t *desc
        uint8_t *avail
        uint8_t *used
        uint16_t next_avail
        uint16_t seen_avail
        uint16_t next_used
        uint16_t avail_marks
        uint16_t used_marks
        int wanted
    int floor_split(peer_queue *queue, uint32_t limit, peer_sums *sums)
    int floor_packed(peer_queue *queue, uint32_t limit, peer_sums *sums)
    int original_split(peer_queue *queue, uint32_t limit, peer_sums *sums)

ctypedef int (*peer_turn)(peer_queue *queue, uint32_t limit, peer_sums *sums) noexcept nogil

# The same memory and the same place in it; a region is three words on both sides.
cdef inline void peer_begin(peer_queue *queue, const FrRing *ring) noexcept nogil:
    queue.regions = <const peer_region *>&ring.memory.regions[0]
    queue.n_regions, queue.size = ring.memory.n_regions, ring.size
    queue.desc, queue.avail, queue.used = <uint8_t *>ring.desc, <uint8_t *>ring.avail, ring.used
    queue.next_avail = queue.seen_avail = ring.next_avail
    queue.next_used = ring.next_used
    queue.avail_marks = queue.used_marks = 0
    queue.wanted = 0
