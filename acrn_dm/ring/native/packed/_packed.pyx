# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Packed virtqueues of virtio 1.4 (2.8), device side: take chains, publish used descriptors, suppress notifications.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.
"""

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_acquire_u64, fr_load_u32, fr_load_u64,
)
from acrn_dm.ring.native._buffers cimport Parts, describe, end_of_batch, fault
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._status cimport FR_E_ID_IN_FLIGHT, FR_E_NOT_LAST, FR_E_OVERRUN, FR_E_TOTAL, FR_EMPTY
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_AVAIL, FR_DESC_F_USED, FR_EVENT_ENABLE, FR_N_IDS, FR_WRAP_SHIFT, desc_word, event_flags, event_of,
    flags_of, position_of,
)
from acrn_dm.ring.native.packed._position cimport (
    FP_AT_SLOT, FP_BEFORE_CHAIN, FP_BEFORE_SLOT, fp_taken, fp_unsee,
)
from acrn_dm.ring.native.packed._walk cimport Place, begin, walk_on


cdef void advance(FrPacked *packed, uint32_t n) noexcept nogil:
    """Chains of *n* descriptors in all were taken."""
    cdef uint32_t slot = packed.ring.next_avail + n
    fp_unsee(packed, n)
    if slot >= packed.ring.size:
        slot -= packed.ring.size
        packed.avail_marks ^= FR_MARKS
    packed.ring.next_avail = <uint16_t>slot


cdef void resume(const FrChain *chain, const FrPackedWalk *walk, Parts *parts) noexcept nogil:
    """What the quick walk has found so far, counted."""
    cdef uint32_t i
    parts.segments, parts.n = chain.segments, <uint32_t>(walk.segment - chain.segments)
    parts.n_out = walk.n_out
    parts.out_bytes = parts.in_bytes = 0
    for i in range(parts.n):
        if i < parts.n_out:
            parts.out_bytes += parts.segments[i].len
        else:
            parts.in_bytes += parts.segments[i].len


cdef int blame(FrPacked *packed, const FrChain *chain, const Parts *parts, int status) noexcept nogil:
    """The fault of a chain at next_avail all of which was walked."""
    cdef uint32_t first = packed.ring.next_avail
    if status == FR_E_ID_IN_FLIGHT:
        return fault(&packed.ring, status, first, chain.head)
    if status == FR_E_TOTAL:
        return fault(&packed.ring, status, first, parts.out_bytes + parts.in_bytes)
    first += packed.ring.size - fp_taken(packed)
    return fault(&packed.ring, status, first % packed.ring.size, packed.ring.size)


cdef int end_chain(FrPacked *packed, FrChain *chain, Parts *parts, uint32_t n) noexcept nogil:
    """All of the chain was walked, *n* descriptors of the ring: it is taken, or has a fault."""
    cdef int status
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if packed.lengths[chain.head] != 0:
        return blame(packed, chain, parts, FR_E_ID_IN_FLIGHT)
    status = describe(&packed.ring, parts, chain, packed.ring.next_avail)
    if status < 0:
        return status
    packed.lengths[chain.head] = n | (FR_DESC_F_WRITE << 16 if parts.in_bytes != 0 else 0)
    advance(packed, n)
    return FR_OK


cdef int go_on(FrPacked *packed, FrChain *chain, FrPackedWalk *walk, uint32_t room, int status) noexcept nogil:
    """To the end of the chain, which is taken then: FR_OK, or a negative status with nothing taken."""
    cdef Place place
    cdef Parts parts
    resume(chain, walk, &parts)
    if status < 0:
        return blame(packed, chain, &parts, status)
    begin(packed, walk, parts.n, status, &place)
    if fp_taken(packed) + place.n > packed.ring.size:
        return blame(packed, chain, &parts, FR_E_OVERRUN)
    status = walk_on(packed, chain, &place, &parts, room, status != FP_BEFORE_SLOT)
    if status == FR_OK:
        status = end_chain(packed, chain, &parts, place.n)
    walk.segment = chain.segments + parts.n
    return status


cdef int take(FrPacked *packed, FrChain *chain, FrPackedWalk *walk, uint32_t room) noexcept nogil:
    """As _pop.pxd does, but for chains of any kind: FR_OK, FR_EMPTY, or a negative status."""
    cdef const uint8_t *at = packed.ring.desc + FR_DESC_SIZE * <size_t>packed.ring.next_avail
    walk.word = fr_load_acquire_u64(desc_word(at))
    if flags_of(walk.word) & FR_MARKS != packed.avail_marks:
        return FR_EMPTY
    walk.addr, walk.n_out = fr_load_u64(at), 0
    chain.segments, chain.position = walk.segment, fp_next_avail(packed)
    return go_on(packed, chain, walk, room, FP_AT_SLOT)


cdef int fp_pop_rest(
    FrPacked *packed, FrBatch *batch, FrChain *chain, const FrChain *stop, int status, FrPackedWalk walk,
) noexcept nogil:
    cdef FrSegment *end = batch.segments + batch.max_segments
    cdef uint32_t slot = chain.position & FR_OFF
    if chain != batch.chains:  # and fewer descriptors before it than the ring has
        advance(packed, slot - packed.ring.next_avail + (packed.ring.size if slot < packed.ring.next_avail else 0))
    if status == FP_BEFORE_CHAIN:
        status = take(packed, chain, &walk, <uint32_t>(end - walk.segment))
    else:
        chain.position = fp_next_avail(packed)
        status = go_on(packed, chain, &walk, <uint32_t>(end - chain.segments), status)
    while status == FR_OK:
        chain += 1
        if chain == stop:
            break
        status = take(packed, chain, &walk, <uint32_t>(end - walk.segment))
    batch.n_chains = <uint32_t>(chain - batch.chains)
    return end_of_batch(&packed.ring, batch, status)


cdef bint fp_ends_at(const FrPacked *packed, const FrChain *chain, uint16_t *end) noexcept nogil:
    cdef uint32_t n = packed.lengths[chain.head] & FR_LENGTH
    cdef uint32_t slot = (chain.position & FR_OFF) + n
    cdef bint wrap = chain.position >> FR_WRAP_SHIFT
    if slot >= packed.ring.size:
        slot -= packed.ring.size
        wrap = not wrap
    if n == 0 or position_of(slot, wrap) != end[0]:
        return False
    end[0] = chain.position
    return True


cdef int fp_unpop(FrPacked *packed, const FrChain *chain) noexcept nogil:
    cdef uint16_t end = fp_next_avail(packed)
    cdef uint32_t n = packed.lengths[chain.head] & FR_LENGTH
    if n == 0:
        return FR_E_NOT_IN_FLIGHT
    if not fp_ends_at(packed, chain, &end):
        return FR_E_NOT_LAST
    packed.lengths[chain.head] = 0
    packed.n_seen += n
    packed.ring.next_avail = end & FR_OFF
    packed.avail_marks = FR_DESC_F_AVAIL if end >> FR_WRAP_SHIFT else FR_DESC_F_USED
    return FR_OK


cdef bint fp_hold(FrPacked *packed) noexcept nogil:
    if fp_publish(packed):
        packed.ring.held = True
        packed.ring.wish = fr_load_u32(packed.ring.avail)
    return packed.ring.held


cdef bint fp_release(FrPacked *packed) noexcept nogil:
    cdef uint32_t event = fr_load_u32(packed.ring.avail)
    cdef uint16_t flags = (event >> 16) & FR_EVENT_FLAGS
    cdef bint held = packed.ring.held
    packed.ring.held = False
    if not held:
        return False
    if flags != FR_EVENT_DESC or not packed.ring.event_idx:
        return flags != FR_EVENT_DISABLE
    return event == packed.ring.wish  # else it was awake since, as in fr_release


cdef void fp_disable_kicks(FrPacked *packed) noexcept nogil:
    # Other than a split ring's avail_event a position that the driver has passed comes round after one lap already, so
    # with EVENT_IDX, too, it is told by the flags (2.8.10).
    if packed.event_flags == FR_EVENT_DISABLE:
        return
    packed.event_flags = FR_EVENT_DISABLE
    fr_store_u16(event_flags(packed.ring.used), FR_EVENT_DISABLE)


cdef inline uint16_t next_unseen(const FrPacked *packed, uint32_t *marks) noexcept nogil:
    """The slot behind all descriptors that were seen to be available, and *marks* of the next one there."""
    cdef uint32_t slot = packed.ring.next_avail + packed.n_seen
    marks[0] = packed.avail_marks
    if slot >= packed.ring.size:
        slot -= packed.ring.size
        marks[0] ^= FR_MARKS
    return <uint16_t>slot


cdef inline bint sees_more(FrPacked *packed) noexcept nogil:
    """Whether descriptors are available behind those that were seen to be, which all that are count among from then on.

    A list has its marks in each descriptor, so nothing is walked.
    """
    cdef uint32_t marks
    cdef const uint8_t *at
    cdef bint more = False
    while packed.n_seen < packed.ring.size:
        at = packed.ring.desc + FR_DESC_SIZE * <size_t>next_unseen(packed, &marks)
        # Acquire, as in a pop: who is told that there is a chain goes on to read it.
        if fr_load_acquire_u16(desc_flags(<uint8_t *>at)) & FR_MARKS != marks:
            break
        packed.n_seen += 1
        more = True
    return more


cdef int fp_enable_kicks(FrPacked *packed) noexcept nogil:
    cdef uint32_t marks
    cdef uint16_t slot
    if packed.ring.status != FR_OK:
        return packed.ring.status
    if packed.ring.event_idx:
        slot = next_unseen(packed, &marks)
        # Both fields at once, so that the driver never sees the new flags beside the old position.
        packed.event_flags = FR_EVENT_DESC
        fr_store_u32(packed.ring.used, event_of(position_of(slot, marks == FR_DESC_F_AVAIL), FR_EVENT_DESC))
    else:
        packed.event_flags = FR_EVENT_ENABLE
        fr_store_u16(event_flags(packed.ring.used), FR_EVENT_ENABLE)
    # Full fence between our wish for a kick and the last look at the ring. The driver stores the flags of a descriptor,
    # fences, reads our wish. Were our load to pass our store, it could read the old wish and send no kick while we see
    # nothing and sleep.
    fr_full_fence()
    # What was seen before and left, as a card leaves buffers that it has no frame for, is nothing to look at again.
    return FR_OK if sees_more(packed) else FR_EMPTY


cdef int fp_look(FrPacked *packed) noexcept nogil:
    if packed.ring.status != FR_OK:
        return packed.ring.status
    sees_more(packed)
    return FR_OK if packed.n_seen != 0 else FR_EMPTY


cdef bint fp_begin(FrPacked *packed, uint16_t avail, uint16_t used) noexcept nogil:
    cdef uint32_t size = packed.ring.size
    cdef int32_t ahead = <int32_t>(avail & FR_OFF) - <int32_t>(used & FR_OFF)
    if (avail ^ used) >> FR_WRAP_SHIFT:
        ahead += size
    if (avail & FR_OFF) >= size or (used & FR_OFF) >= size or ahead < 0 or ahead > <int32_t>size:
        return False
    packed.ring.next_avail = avail & FR_OFF
    packed.next_used = packed.published_used = used & FR_OFF
    packed.avail_marks = FR_DESC_F_AVAIL if avail >> FR_WRAP_SHIFT else FR_DESC_F_USED
    packed.used_marks = packed.published_marks = FR_MARKS if used >> FR_WRAP_SHIFT else 0
    return True


cdef uint16_t fp_next_avail(const FrPacked *packed) noexcept nogil:
    return position_of(packed.ring.next_avail, packed.avail_marks == FR_DESC_F_AVAIL)


cdef uint32_t fp_in_flight(const FrPacked *packed) noexcept nogil:
    cdef uint32_t i, n = 0
    for i in range(<uint32_t>FR_N_IDS):
        n += packed.lengths[i] != 0
    return n


cdef uint16_t fp_next_used(const FrPacked *packed) noexcept nogil:
    return position_of(packed.next_used, packed.used_marks != 0)
