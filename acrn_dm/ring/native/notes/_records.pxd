# Notes of what is in flight in one ring, in memory that outlives this process (QEMU's docs/interop/vhost-user.rst,
# "Inflight I/O tracking"): plain data.
#
# Others can write that memory, so nothing is read from it: what the notes say is kept here, too.

from acrn_dm.ring.native._records cimport FrOverlay, FrPacked, FrRing, FrVirtqueue
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct FrNotes:
    FrOverlay overlay         # first: what the ring calls it by
    FrVirtqueue again         # private memory with what the last process left: it is taken before the ring's own
    FrRing split_again
    FrPacked packed_again
    uint32_t n_again          # chains that are left there
    uint64_t n_taken          # of the ring's own, less those given back
    uint8_t *region
    uint64_t counter          # the number of the next chain
    uint16_t *pushed          # entries of the chains returned since the driver was last shown any
    uint32_t n_pushed
    # Of a split ring; entries are heads.
    uint8_t *is_pushed
    uint16_t last_batch_head
    # Of a packed ring; a chain's entry is its first one.
    uint16_t *next            # by entry: the chain's next one, or the next free one
    uint16_t *last            # by entry of a chain: its last one
    uint16_t *entry_of        # by buffer id
    uint16_t free_head
    uint64_t shown            # where the driver was last shown something, as the region says it
