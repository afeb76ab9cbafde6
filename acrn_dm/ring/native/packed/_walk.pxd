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


cdef inline int walk_table(
    FrRing *ring, Parts *parts, uint32_t room, uint32_t at, const Descriptor *referring,
) noexcept nogil:
    """The buffers of an indirect table: all its entries, one after the other (2.8.7)."""
    cdef Table table
    cdef Descriptor d
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef uint32_t i
    cdef int status
    table.indirect = False
    status = enter_indirect(ring, &table, at, referring)
    if fr_unlikely(status != FR_OK):
        return status
    if fr_unlikely(table.n_entries > ring.max_descriptors):
        return fault(ring, FR_E_TOO_LONG, at, ring.max_descriptors)
    for i in range(table.n_entries):
        load_table_entry(entry_of(ring, &table, i, copy), &d)
        status = add_buffer(ring, parts, room, i, &d)
        if fr_unlikely(status != FR_OK):
            return status
    return FR_OK


cdef inline int add_descriptor(
    FrRing *ring, Parts *parts, uint32_t room, uint32_t slot, uint32_t n, const Descriptor *d,
) noexcept nogil:
    """The buffer, or the table of buffers, of a list's descriptor number *n*. Tables stand alone (2.8.5)."""
    if not d.flags & FR_DESC_F_INDIRECT:
        return add_buffer(ring, parts, room, slot, d)
    if fr_unlikely(n != 0):
        return fault(ring, FR_E_INDIRECT_LIST, slot, d.flags)
    return walk_table(ring, parts, room, slot, d)


cdef inline int walk_list(
    FrPacked *packed, FrChain *chain, Parts *parts, uint32_t room, uint16_t flags, uint16_t *marks,
) noexcept nogil:
    """The descriptors of the chain at next_avail, of which *flags* were loaded; returns how many, or a negative status.

    What NEXT leads to was made available before the first one was (2.8.6), so it needs no fence; its marks are judged
    all the same, for a device uses no descriptor whose AVAIL has not changed (2.8.14). A loop can't be: the list ends
    where descriptors begin that the driver can't have made available.
    """
    cdef FrRing *ring = &packed.ring
    cdef Descriptor d
    cdef uint8_t *at
    cdef uint32_t slot = ring.next_avail
    cdef uint32_t n = 0
    cdef int status
    while True:
        at = <uint8_t *>ring.desc + slot * FR_DESC_SIZE
        if n != 0:
            flags = fr_load_u16(desc_flags(at))
            if fr_unlikely((flags & FR_MARKS) != marks[0]):
                return fault(ring, FR_E_NOT_AVAILABLE, slot, flags)
        if fr_unlikely(packed.n_taken + n == ring.size):
            return fault(ring, FR_E_OVERRUN, slot, ring.size)
        load_unflagged(at, flags, &d)
        status = add_descriptor(ring, parts, room, slot, n, &d)
        if fr_unlikely(status != FR_OK):
            return status
        n += 1
        slot += 1
        if slot == ring.size:
            slot = 0
            marks[0] ^= FR_MARKS
        if not flags & FR_DESC_F_NEXT:
            break
    chain.head = d.next  # the buffer id is the last descriptor's (2.8.6)
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
