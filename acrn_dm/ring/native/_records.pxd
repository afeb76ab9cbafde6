# The records of the native rings, plain data of no unit's own: chains, batches, rings, and a ring of either format.

from acrn_dm.ring.native._memory cimport FrMemory, FrSegment
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct FrOverlay         # below

cdef struct FrChain:
    FrSegment *segments       # n_out device-readable ones, then n_in device-writable ones
    uint32_t n_out
    uint32_t n_in
    uint32_t out_bytes
    uint32_t in_bytes
    uint16_t head             # the chain's name when it is returned; in a split ring the index of its first descriptor
    uint16_t position         # where in the ring it was taken

cdef struct FrBatch:
    FrChain *chains
    FrSegment *segments       # shared by all chains of the batch, recycled by the next
    uint32_t max_chains
    uint32_t max_segments
    uint32_t n_chains         # filled in by the pop

# A chain whose walk is under way: the segments up to *segment* are filled in, one for each descriptor passed, the first
# *n_out* of them device-readable; the descriptor at *at* is loaded but for its next, and not looked at yet.
cdef struct FrWalk:
    FrSegment *segment
    size_t n_out
    const uint8_t *table      # that *at* stands in: the ring's, or an indirect one
    size_t n_entries          # of *table*
    const uint8_t *at
    uint64_t addr
    uint64_t len
    uint32_t flags

cdef struct FrRing:
    const FrMemory *memory
    const uint8_t *desc       # size entries of FR_DESC_SIZE
    const uint8_t *avail      # le16 flags, le16 idx, le16 ring[size], le16 used_event
    uint8_t *used             # le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event
    uint8_t *in_flight        # one byte for each head there can be: popped and not yet pushed
    uint32_t size
    uint32_t mask             # size - 1
    uint32_t max_descriptors  # of one chain
    uint16_t next_avail       # index of the next available entry to take
    uint16_t seen_avail       # shadow of avail.idx; next_avail <= seen_avail <= next_avail + size, modulo 2^16
    uint16_t next_used        # index the next pushed element gets
    uint16_t published_used   # used.idx as the driver sees it
    bint event_idx
    bint indirect
    bint held                 # an interrupt is held back
    uint32_t wish             # ... that the driver asked for by this event index, or event suppression structure
    uint32_t max_segments     # what a batch of the ring's own has room for
    int status                # FR_OK, or the fault that broke the ring for good
    uint32_t fault_index
    uint64_t fault_value

# A packed ring. *ring* has what the formats share: its areas (desc is the descriptor ring, avail the driver's event
# suppression structure, used the device's), limits and faults; next_avail is a slot of the ring, and what is only a
# split ring's stays 0.
cdef struct FrPacked:
    FrRing ring
    # By buffer id, of which any is legal: how many descriptors its chain in flight has, 0 where none is; in the upper
    # half FR_DESC_F_WRITE if the device may write to it.
    uint32_t *lengths
    uint32_t next_used        # slots, in a word each, as they are reckoned with
    uint32_t published_used
    uint32_t n_seen           # descriptors from next_avail on that were seen to be available; never more than size
    uint16_t avail_marks      # AVAIL and USED of a descriptor that is available at next_avail, by the wrap counter
    uint16_t used_marks       # ... of one that is used at next_used
    uint16_t published_marks  # ... at published_used
    uint16_t first_flags      # WRITE, if the first chain pushed since the last publish has it
    uint16_t event_flags      # the device's event suppression flags as the driver sees them

# A chain of a packed ring whose walk is under way: the segments up to *segment* are filled in, one for each descriptor
# passed.
cdef struct FrPackedWalk:
    FrSegment *segment
    uint32_t n_out            # device-readable segments
    uint32_t n_entries        # of *table*
    const uint8_t *table      # the indirect table that was entered, if one was
    uint64_t addr             # of the descriptor or entry that is loaded, and not looked at yet, if one is
    uint64_t word             # ... its len, id and flags

cdef enum FrKind:
    FR_SPLIT = 0
    FR_PACKED = 1
    FR_OVERLAID = 2           # something stands before a ring of one of these

# The device side of a virtqueue, of whatever format: what the ``vq_`` functions of ``_virtqueue.pxd`` take. It belongs
# to the ring object whose ``virtqueue()`` returned it, and is good as long as that is open.
cdef struct FrVirtqueue:
    uint32_t kind
    FrRing *split             # NULL if packed
    FrPacked *packed_ring     # NULL if not
    FrOverlay *overlay        # if *kind* is FR_OVERLAID

# What stands before a ring and takes part in all that is done with it: each function is what the ``vq_`` function of
# its name does, of the overlay. Rings without one pay nothing for it.
cdef struct FrOverlay:
    FrVirtqueue under
    int (*pop_batch)(FrOverlay *overlay, FrBatch *batch, uint32_t limit) noexcept nogil
    int (*unpop)(FrOverlay *overlay, const FrChain *chain) noexcept nogil
    int (*push)(FrOverlay *overlay, uint16_t head, uint32_t written) noexcept nogil
    bint (*publish)(FrOverlay *overlay) noexcept nogil
    bint (*hold)(FrOverlay *overlay) noexcept nogil
    void (*disable_kicks)(FrOverlay *overlay) noexcept nogil
    int (*enable_kicks)(FrOverlay *overlay) noexcept nogil
    int (*look)(FrOverlay *overlay) noexcept nogil
    uint16_t (*next)(const FrOverlay *overlay) noexcept nogil
