# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Split virtqueues of virtio 1.4 (2.7), device side: take chains, publish used elements, suppress notifications.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.
"""

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_store_release_u16, fr_store_u16, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport fault, settle
from acrn_dm.ring.native._status cimport (
    FR_E_AVAIL_JUMP, FR_E_HEAD, FR_E_IN_FLIGHT, FR_E_NOT_LAST, FR_EMPTY, raise_status,
)
from acrn_dm.ring.native.split._layout cimport (
    FR_AVAIL_F_NO_INTERRUPT, FR_USED_F_NO_NOTIFY, avail_entry, avail_event, avail_flags, avail_idx, used_event,
    used_flags, used_idx,
)
from acrn_dm.ring.native.split._walk cimport walk


cdef inline int take(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    """Take the chain at next_avail; returns its number of segments, or a negative status with nothing taken."""
    cdef uint32_t slot = ring.next_avail & (ring.size - 1)
    cdef uint16_t head = fr_load_u16(avail_entry(ring.avail, slot))
    cdef int n_segments
    if fr_unlikely(head >= ring.size):
        return fault(ring, FR_E_HEAD, slot, head)
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(ring.in_flight[head]):
        return fault(ring, FR_E_IN_FLIGHT, slot, head)
    chain.head = head
    chain.position = ring.next_avail
    n_segments = walk(ring, chain, segments, room)
    if fr_unlikely(n_segments < 0):
        return n_segments
    ring.in_flight[head] = True
    ring.next_avail += 1
    return n_segments


cdef int fr_load_avail(FrRing *ring) noexcept nogil:
    # Acquire: what the driver wrote before it raised idx (entries, descriptors, buffers) is seen by all later loads.
    cdef uint16_t idx = fr_load_acquire_u16(avail_idx(ring.avail))
    if <uint16_t>(idx - ring.next_avail) > ring.size:
        return fault(ring, FR_E_AVAIL_JUMP, idx, ring.next_avail)
    ring.seen_avail = idx
    return FR_OK


cdef inline int look(FrRing *ring) noexcept nogil:
    """FR_OK when there is a chain to take. The driver's index is loaded only when all it showed last time is taken: the
    line it stands in travels between two cores."""
    cdef int status
    if ring.status != FR_OK:
        return ring.status
    if ring.next_avail != ring.seen_avail:
        return FR_OK
    status = settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.next_avail == ring.seen_avail else FR_OK


cdef int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef FrSegment *segments = batch.segments
    cdef uint32_t room = batch.max_segments
    cdef FrChain *chain
    cdef int n_segments = 0
    cdef int status = look(ring)
    batch.n_chains = 0
    if status != FR_OK:
        return status
    limit = min(limit, batch.max_chains, <uint16_t>(ring.seen_avail - ring.next_avail))
    if limit == 0:
        return FR_EMPTY
    while batch.n_chains < limit:
        chain = &batch.chains[batch.n_chains]
        n_segments = take(ring, chain, segments, room)
        if fr_unlikely(n_segments < 0):
            break
        segments += n_segments
        room -= <uint32_t>n_segments
        batch.n_chains += 1
    return FR_OK if batch.n_chains > 0 else settle(ring, n_segments)


cdef int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    cdef FrBatch batch
    batch.chains, batch.max_chains = chain, 1
    batch.segments, batch.max_segments = segments, room
    return fr_pop_batch(ring, &batch, 1)


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


cdef bint fr_publish(FrRing *ring) noexcept nogil:
    cdef uint16_t new = ring.next_used
    cdef uint16_t old = ring.published_used
    cdef uint16_t event
    if new == old:
        return False
    # Release: the driver that sees this idx also sees the elements and the data in the buffers (2.7.8.2).
    fr_store_release_u16(used_idx(ring.used), new)
    ring.published_used = new
    # Full fence between our store of idx and the load of its wish. The driver does the mirror image: it stores its wish
    # for an interrupt, fences, and looks at idx once more. Were our load to pass our store, both could read the old
    # value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    if not ring.event_idx:
        return not fr_load_u16(avail_flags(ring.avail)) & FR_AVAIL_F_NO_INTERRUPT
    event = fr_load_u16(used_event(ring.avail, ring.size))
    # 2.7.10: whether idx passed event + 1 in this batch. At most size <= 2^15 elements, so the difference is exact.
    return <uint16_t>(new - event - 1) < <uint16_t>(new - old)


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
