# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Split virtqueues of virtio 1.4 (2.7), device side: take chains, publish used elements, suppress notifications.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.
"""

from acrn_dm.ring.native._atomics cimport fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_store_u16
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE, Descriptor, Parts, Table, end_of_batch, fault, settle
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._status cimport (
    FR_E_AVAIL_JUMP, FR_E_HEAD, FR_E_IN_FLIGHT, FR_E_NEXT, FR_E_NOT_LAST, FR_EMPTY, raise_status,
)
from acrn_dm.ring.native.split._layout cimport (
    FR_AVAIL_F_NO_INTERRUPT, FR_USED_F_NO_NOTIFY, avail_entry, avail_event, avail_flags, avail_idx, load_fields,
    used_event, used_flags,
)
from acrn_dm.ring.native.split._walk cimport walk_on


cdef int fr_load_avail(FrRing *ring) noexcept nogil:
    # Acquire: what the driver wrote before it raised idx (entries, descriptors, buffers) is seen by all later loads.
    cdef uint16_t idx = fr_load_acquire_u16(avail_idx(ring.avail))
    if <uint16_t>(idx - ring.next_avail) > ring.size:
        return fault(ring, FR_E_AVAIL_JUMP, idx, ring.next_avail)
    ring.seen_avail = idx
    return FR_OK


cdef int follow(FrRing *ring, FrChain *chain, const FrWalk *walk, const FrSegment *end) noexcept nogil:
    """To the chain's end; its number of segments, or a negative status. *end* is that of the room for segments."""
    cdef Table table
    cdef Parts parts
    cdef Descriptor d
    cdef uint32_t i
    if walk.at == NULL:
        return fault(ring, FR_E_NEXT, <uint32_t>walk.len, walk.addr)
    table.hva, table.gpa, table.n_entries = walk.table, 0, <uint32_t>walk.n_entries
    table.indirect = walk.table != ring.desc
    d.addr, d.len, d.flags = walk.addr, <uint32_t>walk.len, <uint16_t>walk.flags
    parts.segments, parts.n = chain.segments, <uint32_t>(walk.segment - chain.segments)
    parts.n_out = <uint32_t>walk.n_out
    parts.out_bytes = parts.in_bytes = 0
    for i in range(parts.n):
        if i < walk.n_out:
            parts.out_bytes += parts.segments[i].len
        else:
            parts.in_bytes += parts.segments[i].len
    return walk_on(ring, chain, &table, &parts, <uint32_t>(end - chain.segments), walk.at, &d)


cdef int go_on(FrRing *ring, FrChain *chain, const FrWalk *walk, const FrSegment *end) noexcept nogil:
    """The same for a chain that is in flight, and is no longer after a fault."""
    cdef int n_segments = follow(ring, chain, walk, end)
    if n_segments < 0:
        ring.in_flight[chain.head] = False
    return n_segments


cdef int take(FrRing *ring, FrChain *chain, FrSegment *segment, const FrSegment *end) noexcept nogil:
    """As _pop.pxd does, but for chains of any kind: the segments of the chain at next_avail."""
    cdef uint32_t slot = ring.next_avail & ring.mask
    cdef uint16_t head = fr_load_u16(avail_entry(ring.avail, slot))
    cdef Descriptor d
    cdef FrWalk walk
    if head >= ring.size or ring.in_flight[head]:
        return refused(ring, slot, head)
    ring.in_flight[head] = True
    chain.segments, chain.head, chain.position = segment, head, ring.next_avail
    walk.segment, walk.table, walk.n_entries, walk.n_out = segment, ring.desc, ring.size, 0
    walk.at = walk.table + FR_DESC_SIZE * <size_t>head
    load_fields(walk.at, &d)
    walk.addr, walk.len, walk.flags = d.addr, d.len, d.flags
    return go_on(ring, chain, &walk, end)


cdef int end_batch(FrRing *ring, FrBatch *batch, const FrChain *chain, int status) noexcept nogil:
    """What a pop returns that ends before *chain*."""
    batch.n_chains = <uint32_t>(chain - batch.chains)
    return end_of_batch(ring, batch, status)


cdef int refused(FrRing *ring, uint32_t slot, uint16_t head) noexcept nogil:
    return fault(ring, FR_E_HEAD if head >= ring.size else FR_E_IN_FLIGHT, slot, head)


cdef int fr_pop_refused(
    FrRing *ring, FrBatch *batch, const FrChain *chain, uint16_t index, uint16_t head,
) noexcept nogil:
    ring.next_avail = index
    return end_batch(ring, batch, chain, refused(ring, index & ring.mask, head))


cdef int fr_pop_rest(FrRing *ring, FrBatch *batch, FrChain *chain, const FrChain *stop, FrWalk walk) noexcept nogil:
    cdef const FrSegment *end = batch.segments + batch.max_segments
    cdef int n_segments
    ring.next_avail = chain.position
    n_segments = go_on(ring, chain, &walk, end)
    while n_segments >= 0:
        ring.next_avail += 1
        chain += 1
        if chain == stop:
            break
        n_segments = take(ring, chain, chain[-1].segments + n_segments, end)
    return end_batch(ring, batch, chain, n_segments)


cdef bint fr_ends_at(const FrRing *ring, const FrChain *chain, uint16_t *end) noexcept nogil:
    if chain.head >= ring.size or not ring.in_flight[chain.head] or <uint16_t>(chain.position + 1) != end[0]:
        return False
    end[0] = chain.position
    return True


cdef int fr_unpop(FrRing *ring, const FrChain *chain) noexcept nogil:
    if chain.head >= ring.size or not ring.in_flight[chain.head]:
        return FR_E_NOT_IN_FLIGHT
    if not fr_ends_at(ring, chain, &ring.next_avail):
        return FR_E_NOT_LAST
    ring.in_flight[chain.head] = False
    return FR_OK


cdef bint fr_hold(FrRing *ring) noexcept nogil:
    if fr_publish(ring):
        ring.held = True
        ring.wish = fr_load_u16(used_event(ring.avail, ring.size)) if ring.event_idx else 0
    return ring.held


cdef bint fr_release(FrRing *ring) noexcept nogil:
    cdef bint held = ring.held
    ring.held = False
    if not held:
        return False
    if not ring.event_idx:
        return not fr_load_u16(avail_flags(ring.avail)) & FR_AVAIL_F_NO_INTERRUPT
    # A driver that has changed its wish since was awake, and has looked at idx behind that: what it asked for then is
    # nothing that was shown by then, else fr_hold has found the new wish. So nothing is lost; no fence is missing.
    return fr_load_u16(used_event(ring.avail, ring.size)) == ring.wish


cdef void fr_disable_kicks(FrRing *ring) noexcept nogil:
    # With EVENT_IDX flags stays 0 (2.7.10.1) and the avail_event that the driver has passed keeps it quiet for us.
    if not ring.event_idx:
        fr_store_u16(used_flags(ring.used), FR_USED_F_NO_NOTIFY)


cdef int fr_enable_kicks(FrRing *ring) noexcept nogil:
    cdef uint16_t seen = ring.seen_avail
    cdef int status
    if ring.status != FR_OK:
        return ring.status
    if ring.event_idx:
        fr_store_u16(avail_event(ring.used, ring.size), seen)
    else:
        fr_store_u16(used_flags(ring.used), 0)
    # Full fence between our wish for a kick and the last look at idx. The driver stores idx, fences, reads our wish.
    # Were our load to pass our store, it could read the old wish and send no kick while we read the old idx and sleep.
    fr_full_fence()
    status = settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.seen_avail == seen else FR_OK


cdef int fr_look(FrRing *ring) noexcept nogil:
    cdef int status = ring.status if ring.status != FR_OK else settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.next_avail == ring.seen_avail else FR_OK


cdef int fr_raise(const FrRing *ring, int status) except -1 with gil:
    raise_status(status, ring.fault_index, ring.fault_value)
