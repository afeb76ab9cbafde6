# The walk: one chain of a split ring, from its head to its segments. All inlined, for a batch pays it per descriptor.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_SIZE, Descriptor, Parts, Table, add_buffer, describe, enter_indirect,
    entry_of, fault,
)
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._records cimport FrChain, FrRing
from acrn_dm.ring.native._status cimport FR_E_NEXT, FR_E_TOO_LONG, FR_OK
from acrn_dm.ring.native.split._layout cimport load_fields
from libc.stdint cimport uint8_t, uint32_t


cdef inline int walk(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    """Follow the chain from its head; returns its number of segments, or a negative status.

    *budget* counts descriptors down, so that a loop ends: a chain without one passes each entry of its table once, and
    through an indirect table at most max_descriptors in all.
    """
    cdef Table table
    cdef Descriptor d
    cdef Parts parts
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef uint32_t index = chain.head
    cdef uint32_t budget = ring.size
    cdef uint32_t n_walked = 0
    cdef int status
    table.hva, table.gpa, table.n_entries, table.indirect = ring.desc, 0, ring.size, False
    parts.segments, parts.n, parts.n_out, parts.out_bytes, parts.in_bytes = segments, 0, 0, 0, 0
    while True:
        load_fields(entry_of(ring, &table, index, copy), &d)
        if d.flags & FR_DESC_F_INDIRECT:
            status = enter_indirect(ring, &table, index, &d)
            if fr_unlikely(status != FR_OK):
                return status
            index = 0
            budget = min(table.n_entries, ring.max_descriptors - n_walked)
            continue
        if fr_unlikely(budget == 0):
            return fault(ring, FR_E_TOO_LONG, index, n_walked)
        budget -= 1
        n_walked += 1
        status = add_buffer(ring, &parts, room, index, &d)
        if fr_unlikely(status != FR_OK):
            return status
        if not d.flags & FR_DESC_F_NEXT:
            break
        if fr_unlikely(d.next >= table.n_entries):
            return fault(ring, FR_E_NEXT, index, d.next)
        index = d.next
    return describe(ring, &parts, chain, chain.head)
