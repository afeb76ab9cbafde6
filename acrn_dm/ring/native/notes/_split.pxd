# The part of a split ring, QueueRegionSplit: le64 features, le16 version, desc_num, last_batch_head, used_idx, then
# DescStateSplit by head: u8 inflight, 5 bytes of padding, le16 next, le64 counter. A process may die between any two
# stores, so their order is the one that is laid down there.

from acrn_dm.ring.native._atomics cimport fr_store_release_u16, fr_store_u16, fr_store_u64
from acrn_dm.ring.native._records cimport FrChain
from acrn_dm.ring.native.notes._records cimport FrNotes
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef inline uint8_t *split_state(const FrNotes *notes, uint16_t head) noexcept nogil:
    return notes.region + 16 + 16 * <size_t>head

# A chain was taken. The byte of padding behind *inflight* is stored with it.
cdef inline void fns_took(FrNotes *notes, const FrChain *chain) noexcept nogil:
    cdef uint8_t *state = split_state(notes, chain.head)
    fr_store_u64(state + 8, notes.counter)
    notes.counter += 1
    fr_store_release_u16(state, 1)

# ... and given back.
cdef inline void fns_untook(FrNotes *notes, const FrChain *chain) noexcept nogil:
    fr_store_release_u16(split_state(notes, chain.head), 0)

# A chain was returned, and the driver has not been shown it. One that makes the head available all the same has it
# returned twice in a batch.
cdef inline void fns_pushed(FrNotes *notes, uint16_t head) noexcept nogil:
    if notes.is_pushed[head]:
        return
    notes.is_pushed[head] = True
    notes.pushed[notes.n_pushed] = head
    notes.n_pushed += 1
    fr_store_u16(split_state(notes, head) + 6, notes.last_batch_head)
    notes.last_batch_head = head
    fr_store_release_u16(notes.region + 12, head)

# It has been shown all of them.
cdef inline void fns_shown(FrNotes *notes) noexcept nogil:
    cdef uint32_t i
    for i in range(notes.n_pushed):
        notes.is_pushed[notes.pushed[i]] = False
        fr_store_release_u16(split_state(notes, notes.pushed[i]), 0)
    notes.n_pushed = 0
    fr_store_release_u16(notes.region + 14, notes.overlay.under.split.published_used)
