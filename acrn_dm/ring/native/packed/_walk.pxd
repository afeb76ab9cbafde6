# The walk of whatever a packed ring can have: tables and buffers across regions, empty buffers, every fault.
# What chains are as a rule ``_pop.pxd`` walks by itself, and hands over what is not.

from acrn_dm.ring.native._atomics cimport fr_load_u64, fr_unlikely
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_SIZE, Descriptor, Parts, Table, add_buffer, enter_indirect, entry_of,
    fault,
)
from acrn_dm.ring.native._records cimport FrChain, FrPacked, FrPackedWalk, FrRing
from acrn_dm.ring.native._status cimport (
    FR_E_INDIRECT_LIST, FR_E_NOT_AVAILABLE, FR_E_OVERRUN, FR_E_TOO_LONG, FR_OK,
)
from acrn_dm.ring.native.packed._layout cimport FR_MARKS, desc_word, load_table_entry, split_word
from acrn_dm.ring.native.packed._position cimport FP_AT_ENTRY, fp_taken
from libc.stdint cimport uint8_t, uint16_t, uint32_t

# Where a walk is.
cdef struct Place:
    Table table
    Descriptor d
    uint32_t slot             # of the ring, whose descriptor comes next
    uint32_t n                # descriptors of the ring that were passed
    uint32_t i                # entry of *table*
    uint16_t marks            # of what is available in *slot*


cdef inline void begin(
    const FrPacked *packed, const FrPackedWalk *walk, uint32_t n, int status, Place *place,
) noexcept nogil:
    """Where *walk* is, which has passed *n* descriptors and come to *status*."""
    split_word(walk.addr, walk.word, &place.d)  # the one before, where none is loaded
    place.table.indirect = status == FP_AT_ENTRY
    place.table.hva, place.table.gpa, place.table.n_entries = NULL, 0, 0
    place.i, place.n = 0, n
    if status == FP_AT_ENTRY:
        place.table.hva, place.table.n_entries = walk.table, walk.n_entries
        place.i, place.n = n, 1
    place.slot, place.marks = packed.ring.next_avail + place.n, packed.avail_marks
    if place.slot >= packed.ring.size:
        place.slot -= packed.ring.size
        place.marks ^= FR_MARKS


cdef inline int judge(FrPacked *packed, const Place *place) noexcept nogil:
    """Whether the loaded descriptor may be the list's next one."""
    if fr_unlikely((place.d.flags & FR_MARKS) != place.marks):
        return fault(&packed.ring, FR_E_NOT_AVAILABLE, place.slot, place.d.flags)
    if fr_unlikely(fp_taken(packed) + place.n >= packed.ring.size):
        return fault(&packed.ring, FR_E_OVERRUN, place.slot, packed.ring.size)
    return FR_OK


cdef inline int enter_table(FrRing *ring, Place *place) noexcept nogil:
    """Switch to the table that the loaded descriptor refers to, which has to be a list of its own (2.8.5)."""
    cdef int status
    if fr_unlikely(place.n != 0):
        return fault(ring, FR_E_INDIRECT_LIST, place.slot, place.d.flags)
    status = enter_indirect(ring, &place.table, place.slot, &place.d)
    if fr_unlikely(status == FR_OK and place.table.n_entries > ring.max_descriptors):
        return fault(ring, FR_E_TOO_LONG, place.slot, ring.max_descriptors)
    return status


cdef inline int pass_slot(FrPacked *packed, FrChain *chain, Place *place, bint loaded) noexcept nogil:
    """Load the next descriptor of the ring, unless it is *loaded*, judge it and go behind it: FR_OK, or a fault."""
    cdef const uint8_t *at = packed.ring.desc + FR_DESC_SIZE * <size_t>place.slot
    cdef int status
    if not loaded:
        split_word(fr_load_u64(at), fr_load_u64(desc_word(at)), &place.d)
    status = judge(packed, place)
    if status == FR_OK and place.d.flags & FR_DESC_F_INDIRECT:
        status = enter_table(&packed.ring, place)
    if fr_unlikely(status != FR_OK):
        return status
    chain.head = place.d.next  # the buffer id is that of the last descriptor in the ring (2.8.6)
    place.i = 0 if place.table.indirect else place.slot
    place.n += 1
    place.slot += 1
    if place.slot == packed.ring.size:
        place.slot = 0
        place.marks ^= FR_MARKS
    return FR_OK


cdef inline int walk_on(
    FrPacked *packed, FrChain *chain, Place *place, Parts *parts, uint32_t room, bint loaded,
) noexcept nogil:
    """The buffers of the chain from *place* on, where a descriptor may have been *loaded* already.

    A loop can't be: a list ends where descriptors begin that the driver can't have made available, and of a table each
    entry is passed once (2.8.7). Both go through one call of add_buffer, so that it is inlined.
    """
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef bint more
    cdef int status
    while True:
        if not place.table.indirect:
            status = pass_slot(packed, chain, place, loaded)
            if fr_unlikely(status != FR_OK):
                return status
            more = place.d.flags & FR_DESC_F_NEXT
            loaded = not place.table.indirect
        if place.table.indirect:
            if not loaded:
                load_table_entry(entry_of(&packed.ring, &place.table, place.i, copy), &place.d)
            more = place.i + 1 < place.table.n_entries
        loaded = False
        status = add_buffer(&packed.ring, parts, room, place.i, &place.d)
        if fr_unlikely(status != FR_OK):
            return status
        place.i += 1
        if not more:
            return FR_OK
