# The walk of whatever a split ring can have: tables across regions, buffers across regions, long chains, every fault.
# What chains are as a rule ``_pop.pxd`` walks by itself, and hands over what is not.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_SIZE, Descriptor, Parts, Table, add_buffer, describe, enter_indirect,
    entry_of, fault,
)
from acrn_dm.ring.native._records cimport FrChain, FrRing
from acrn_dm.ring.native._status cimport FR_E_NEXT, FR_E_TOO_LONG, FR_OK
from acrn_dm.ring.native.split._layout cimport load_fields, load_next
from libc.stdint cimport uint8_t, uint32_t


cdef inline int walk_on(
    FrRing *ring, FrChain *chain, Table *table, Parts *parts, uint32_t room, const uint8_t *at, Descriptor *d,
) noexcept nogil:
    """Follow the chain from descriptor *d* on, which was loaded from *at*; returns its number of segments, or a
    negative status.

    *budget* counts descriptors down, so that a loop ends: a chain without one passes each entry of its table once, and
    through an indirect table at most max_descriptors in all.
    """
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef uint32_t index = <uint32_t>((at - table.hva) // FR_DESC_SIZE)
    cdef uint32_t n_walked = parts.n  # so far each had one segment
    cdef uint32_t budget = min(table.n_entries, ring.max_descriptors) - n_walked
    cdef int status
    while True:
        if d.flags & FR_DESC_F_INDIRECT:
            status = enter_indirect(ring, table, index, d)
            if fr_unlikely(status != FR_OK):
                return status
            index = 0
            budget = min(table.n_entries, ring.max_descriptors - n_walked)
        else:
            if fr_unlikely(budget == 0):
                return fault(ring, FR_E_TOO_LONG, index, n_walked)
            budget -= 1
            n_walked += 1
            status = add_buffer(ring, parts, room, index, d)
            if fr_unlikely(status != FR_OK):
                return status
            if not d.flags & FR_DESC_F_NEXT:
                break
            d.next = load_next(at)
            if fr_unlikely(d.next >= table.n_entries):
                return fault(ring, FR_E_NEXT, index, d.next)
            index = d.next
        at = entry_of(ring, table, index, copy)
        load_fields(at, d)
    return describe(ring, parts, chain, chain.head)
