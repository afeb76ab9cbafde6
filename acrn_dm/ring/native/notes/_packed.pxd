# The part of a packed ring, QueueRegionPacked: le64 features, le16 version, desc_num, free_head, old_free_head,
# used_idx, old_used_idx, u8 used_wrap_counter, old_used_wrap_counter, 10 bytes of padding; then DescStatePacked: u8
# inflight, a byte of padding, le16 next, last, num, le64 counter, le16 id, flags, le32 len, le64 addr.
#
# Entries are taken from a list of free ones, as many as a chain has descriptors, for those in the ring are overwritten.
# A process may die between any two stores, so their order is the one that is laid down there; what is old and new is
# stored at once, where that is asked for in several.

from acrn_dm.ring.native._atomics cimport (
    fr_load_u16, fr_load_u32, fr_load_u64, fr_store_release_u16, fr_store_release_u32, fr_store_release_u64,
    fr_store_u16, fr_store_u32, fr_store_u64,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FrChain, FrPacked
from acrn_dm.ring.native.notes._records cimport FrNotes
from acrn_dm.ring.native.packed._layout cimport FR_LENGTH, FR_OFF, desc_flags, desc_id, desc_len
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef inline uint8_t *packed_state(const FrNotes *notes, uint16_t entry) noexcept nogil:
    return notes.region + 32 + 32 * <size_t>entry

cdef inline void set_free_head(FrNotes *notes, uint16_t entry) noexcept nogil:
    """The new one and the old one: what was done is not to be undone."""
    notes.free_head = entry
    fr_store_release_u32(notes.region + 12, entry | <uint32_t>entry << 16)

# Where the next used descriptor is: le16 used_idx without old_used_idx, and used_wrap_counter without the old one.
cdef inline uint64_t used_words(const FrPacked *packed) noexcept nogil:
    return packed.next_used | <uint64_t>(packed.used_marks != 0) << 32

cdef inline void keep_descriptor(const uint8_t *at, uint8_t *state) noexcept nogil:
    fr_store_u64(state + 24, fr_load_u64(at))
    fr_store_u32(state + 20, fr_load_u32(desc_len(<uint8_t *>at)))
    fr_store_u16(state + 18, fr_load_u16(desc_flags(<uint8_t *>at)))
    fr_store_u16(state + 16, fr_load_u16(desc_id(<uint8_t *>at)))

# A chain was taken last. What the driver has changed in it since the walk is looked at again when it is taken again.
cdef inline void fnp_took(FrNotes *notes, const FrChain *chain) noexcept nogil:
    cdef const FrPacked *packed = notes.overlay.under.packed_ring
    cdef uint32_t slot = chain.position & FR_OFF
    cdef uint32_t n = packed.lengths[chain.head] & FR_LENGTH
    cdef uint16_t first = notes.free_head
    cdef uint16_t entry = first
    cdef uint8_t *state = packed_state(notes, first)
    cdef uint32_t i
    for i in range(n):
        if i != 0:
            entry = notes.next[entry]
        keep_descriptor(packed.ring.desc + FR_DESC_SIZE * <size_t>slot, packed_state(notes, entry))
        slot = 0 if slot + 1 == packed.ring.size else slot + 1
    notes.last[first], notes.entry_of[chain.head] = entry, first
    fr_store_u16(state + 4, entry)
    fr_store_u16(state + 6, <uint16_t>n)
    fr_store_u64(state + 8, notes.counter)
    notes.counter += 1
    fr_store_release_u16(state, 1)
    set_free_head(notes, notes.next[entry])

# Link a chain's entries before the free ones; the region is told their head later.
cdef inline void free_entries(FrNotes *notes, uint16_t first) noexcept nogil:
    cdef uint16_t last = notes.last[first]
    notes.next[last] = notes.free_head
    fr_store_u16(packed_state(notes, last) + 2, notes.free_head)
    notes.free_head = first

# A chain was given back.
cdef inline void fnp_untook(FrNotes *notes, const FrChain *chain) noexcept nogil:
    cdef uint16_t first = notes.entry_of[chain.head]
    free_entries(notes, first)
    set_free_head(notes, first)
    fr_store_release_u16(packed_state(notes, first), 0)

# A chain was returned, and the driver has not been shown it. Its entries are freed when it is: a chain that is taken
# meanwhile makes what was done before it final.
cdef inline void fnp_pushed(FrNotes *notes, uint16_t head) noexcept nogil:
    notes.pushed[notes.n_pushed] = notes.entry_of[head]
    notes.n_pushed += 1

# The driver is about to be shown all of them,
cdef inline void fnp_show(FrNotes *notes) noexcept nogil:
    cdef uint32_t i
    for i in range(notes.n_pushed):
        free_entries(notes, notes.pushed[i])
        fr_store_release_u16(notes.region + 12, notes.free_head)
    fr_store_release_u64(notes.region + 16, used_words(notes.overlay.under.packed_ring) | notes.shown)

# and has been.
cdef inline void fnp_shown(FrNotes *notes) noexcept nogil:
    cdef uint64_t used = used_words(notes.overlay.under.packed_ring)
    cdef uint32_t i
    for i in range(notes.n_pushed):
        fr_store_release_u16(packed_state(notes, notes.pushed[i]), 0)
    notes.n_pushed = 0
    set_free_head(notes, notes.free_head)
    notes.shown = (used & 0xFFFF) << 16 | (used >> 32) << 40
    fr_store_release_u64(notes.region + 16, used | notes.shown)
