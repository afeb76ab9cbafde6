# The walk: one chain of a packed ring, from its first descriptor to its segments. All inlined, for a batch pays it per
# descriptor.

from acrn_dm.ring.native._atomics cimport fr_load_u16, fr_unlikely
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, Descriptor, Parts, Table, add_buffer, describe,
    enter_indirect, entry_of, fault,
)
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._records cimport FrChain, FrPacked, FrRing
from acrn_dm.ring.native._status cimport (
    FR_E_ID_IN_FLIGHT, FR_E_INDIRECT_LIST, FR_E_NOT_AVAILABLE, FR_E_OVERRUN, FR_E_TOO_LONG, FR_OK,
)
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_AVAIL, FR_MARKS, desc_flags, load_table_entry, load_unflagged, position_of,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef inline int load_next(
    FrPacked *packed, uint32_t slot, uint32_t n, uint16_t flags, uint16_t marks, Descriptor *d,
) noexcept nogil:
    """Descriptor number *n* of a list; the first one's *flags* were loaded. What NEXT leads to was made available
    before that was (2.8.6), so it needs no fence; its marks are judged all the same, for a device uses no descriptor
    whose AVAIL has not changed (2.8.14).
    """
    cdef uint8_t *at = <uint8_t *>packed.ring.desc + slot * FR_DESC_SIZE
    if n != 0:
        flags = fr_load_u16(desc_flags(at))
        if fr_unlikely((flags & FR_MARKS) != marks):
            return fault(&packed.ring, FR_E_NOT_AVAILABLE, slot, flags)
    if fr_unlikely(packed.n_taken + n == packed.ring.size):
        return fault(&packed.ring, FR_E_OVERRUN, slot, packed.ring.size)
    load_unflagged(at, flags, d)
    return FR_OK


cdef inline int enter_table(FrRing *ring, Table *table, uint32_t slot, uint32_t n, const Descriptor *d) noexcept nogil:
    """Switch to the table that *d* refers to, which has to be a list of its own (2.8.5)."""
    cdef int status
    if fr_unlikely(n != 0):
        return fault(ring, FR_E_INDIRECT_LIST, slot, d.flags)
    status = enter_indirect(ring, table, slot, d)
    if fr_unlikely(status == FR_OK and table.n_entries > ring.max_descriptors):
        return fault(ring, FR_E_TOO_LONG, slot, ring.max_descriptors)
    return status


cdef inline int walk_list(
    FrPacked *packed, FrChain *chain, Parts *parts, uint32_t room, uint16_t flags, uint16_t *marks,
) noexcept nogil:
    """The buffers of the chain at next_avail, whose first *flags* were loaded; returns how many descriptors of the ring
    it takes, or a negative status.

    A loop can't be: a list ends where descriptors begin that the driver can't have made available, and of a table each
    entry is passed once (2.8.7). Both go through one call of add_buffer, so that it is inlined.
    """
    cdef Table table
    cdef Descriptor d
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef uint32_t slot = packed.ring.next_avail, n = 0, i = 0
    cdef bint more
    cdef int status
    table.indirect = False
    while True:
        if not table.indirect:
            status = load_next(packed, slot, n, flags, marks[0], &d)
            if d.flags & FR_DESC_F_INDIRECT and status == FR_OK:
                status = enter_table(&packed.ring, &table, slot, n, &d)
            if fr_unlikely(status != FR_OK):
                return status
            i = 0 if table.indirect else slot
            more = d.flags & FR_DESC_F_NEXT
            n += 1
            slot += 1
            if slot == packed.ring.size:
                slot, marks[0] = 0, marks[0] ^ FR_MARKS
        if table.indirect:
            load_table_entry(entry_of(&packed.ring, &table, i, copy), &d)
            more = i + 1 < table.n_entries
        status = add_buffer(&packed.ring, parts, room, i, &d)
        if fr_unlikely(status != FR_OK):
            return status
        i += 1
        if not more:
            break
    chain.head = d.next  # the buffer id is that of the last descriptor in the ring (2.8.6)
    return <int>n


cdef inline int walk(
    FrPacked *packed, FrChain *chain, FrSegment *segments, uint32_t room, uint16_t flags,
) noexcept nogil:
    """Take the chain at next_avail; returns its number of segments, or a negative status with nothing taken."""
    cdef FrRing *ring = &packed.ring
    cdef Parts parts
    cdef uint16_t marks = packed.avail_marks
    cdef uint32_t first = ring.next_avail
    cdef int n, n_segments
    parts.segments, parts.n, parts.n_out, parts.out_bytes, parts.in_bytes = segments, 0, 0, 0, 0
    n = walk_list(packed, chain, &parts, room, flags, &marks)
    if fr_unlikely(n < 0):
        return n
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(packed.lengths[chain.head] != 0):
        return fault(ring, FR_E_ID_IN_FLIGHT, first, chain.head)
    n_segments = describe(ring, &parts, chain, first)
    if fr_unlikely(n_segments < 0):
        return n_segments
    chain.position = position_of(first, packed.avail_marks == FR_DESC_F_AVAIL)
    packed.lengths[chain.head] = <uint32_t>n | (FR_DESC_F_WRITE << 16 if parts.in_bytes != 0 else 0)
    packed.n_in_flight += 1
    packed.n_taken += <uint32_t>n
    packed.n_seen -= min(packed.n_seen, <uint32_t>n)
    packed.avail_marks = marks
    first += <uint32_t>n
    ring.next_avail = <uint16_t>(first - ring.size if first >= ring.size else first)
    return n_segments
