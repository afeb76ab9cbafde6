# The tally of a split ring that a driver has given to somebody else: which chains are in flight, found out by looking
# at both indices now and then, and at the entries that came since.

from acrn_dm.ring.native._memory cimport MemoryMap
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum FrTallyState:
    FR_TALLY_IDLE = 0
    FR_TALLY_OUT = 1
    FR_TALLY_UNKNOWN = 2      # sight was lost, and nothing seen since says it

cdef struct FrTallyHead:
    uint64_t entry            # the number of the available entry that named it last
    int32_t balance           # of a sample: how often it was made available, less how often it came back
    uint32_t state

cdef struct FrTally:
    const uint8_t *avail
    const uint8_t *used
    uint32_t size             # a power of two
    bint event_idx
    uint16_t next_avail       # behind the entries that were looked at
    uint16_t next_used
    uint64_t n_entries        # that were made available
    uint32_t n_out            # heads that are known to be in flight
    bint sure                 # ... and these are all
    uint64_t n_lost           # how often entries passed unseen
    FrTallyHead *heads
    uint16_t *seen            # the heads of a sample's entries: available ones, then used ones

# Look: by how many entries the index moved that moved most. *late*: so long after the last look that an index may have
# gone round meanwhile.
cdef uint32_t ft_sample(FrTally *tally, bint late) noexcept nogil
# Whether the driver has been asked to kick when it makes the next chain available.
cdef bint ft_wants_kick(const FrTally *tally) noexcept nogil


cdef class RingTally:
    cdef FrTally tally
    cdef MemoryMap memory     # keeps both pointers valid
