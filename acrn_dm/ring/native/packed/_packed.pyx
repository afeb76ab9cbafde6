# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Packed virtqueues of virtio 1.4 (2.8), device side: take chains, publish used descriptors, suppress notifications.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.
"""

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_u32, fr_store_release_u16, fr_store_u16, fr_store_u32, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport settle
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._status cimport FR_E_NOT_LAST, FR_EMPTY
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_AVAIL, FR_DESC_F_USED, FR_EVENT_DESC, FR_EVENT_DISABLE, FR_EVENT_ENABLE, FR_EVENT_FLAGS, FR_LENGTH,
    FR_OFF, FR_WRAP_SHIFT, event_flags, event_of, position_of,
)
from acrn_dm.ring.native.packed._walk cimport walk
from libc.stdint cimport int32_t


cdef inline uint16_t load_flags(const FrPacked *packed) noexcept nogil:
    """The flags of the descriptor to be taken next. Acquire: what the driver wrote before it made that available (the
    descriptor, the rest of its list, the buffers) is seen by all later loads.
    """
    return fr_load_acquire_u16(desc_flags(<uint8_t *>packed.ring.desc + packed.ring.next_avail * FR_DESC_SIZE))


cdef inline bint is_available(const FrPacked *packed, uint16_t flags) noexcept nogil:
    """Whether AVAIL has changed for this time round (2.8.1). USED says that it was the driver, not we."""
    return (flags & FR_MARKS) == packed.avail_marks


cdef int fp_pop_batch(FrPacked *packed, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef FrSegment *segments = batch.segments
    cdef uint32_t room = batch.max_segments
    cdef uint16_t flags
    cdef int n_segments = FR_EMPTY
    batch.n_chains = 0
    if packed.ring.status != FR_OK:
        return packed.ring.status
    limit = min(limit, batch.max_chains)
    while batch.n_chains < limit:
        flags = load_flags(packed)
        if not is_available(packed, flags):
            break
        n_segments = walk(packed, &batch.chains[batch.n_chains], segments, room, flags)
        if fr_unlikely(n_segments < 0):
            break
        segments += n_segments
        room -= <uint32_t>n_segments
        batch.n_chains += 1
    return FR_OK if batch.n_chains > 0 else settle(&packed.ring, n_segments)


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
    packed.n_in_flight -= 1
    packed.n_taken -= n
    packed.n_seen += n
    packed.ring.next_avail = end & FR_OFF
    packed.avail_marks = FR_DESC_F_AVAIL if end >> FR_WRAP_SHIFT else FR_DESC_F_USED
    return FR_OK


cdef inline bint wants_interrupt(const FrPacked *packed, uint32_t n) noexcept nogil:
    """Whether the driver asked to be told of the last *n* descriptors, which lie before next_used (2.8.10)."""
    # One load of both fields: off and flags are of the same moment, whatever the driver changes first.
    cdef uint32_t event = fr_load_u32(packed.ring.avail)
    cdef uint16_t flags = (event >> 16) & FR_EVENT_FLAGS
    cdef int32_t off = event & FR_OFF
    cdef int32_t new = packed.ring.next_used
    if flags != FR_EVENT_DESC or not packed.ring.event_idx:  # the reserved flag asks for nothing that could be kept
        return flags != FR_EVENT_DISABLE
    if ((event >> FR_WRAP_SHIFT) & 1) != (packed.used_marks != 0):
        off -= packed.ring.size  # of the time round before
    # Whether *off* is one of [new - n, new), modulo 2^16 as in 2.7.10; n is at most size, so nothing wraps twice.
    return <uint16_t>(new - off - 1) < <uint16_t>n


cdef bint fp_publish(FrPacked *packed) noexcept nogil:
    cdef uint32_t n = packed.n_pushed
    if n == 0:
        return False
    # Release: the driver that sees these flags also sees the other descriptors of the batch, len and id of each, and
    # the data in the buffers. It looks at no later descriptor before this one is used (2.8.2).
    fr_store_release_u16(desc_flags(packed.first), packed.first_flags)
    packed.n_pushed = 0
    packed.n_taken -= n
    # Full fence between our store of the flags and the load of its wish. The driver does the mirror image: it stores
    # its wish for an interrupt, fences, and looks at the flags once more. Were our load to pass our store, both could
    # read the old value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    return wants_interrupt(packed, n)


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


cdef inline bint sees_more(FrPacked *packed) noexcept nogil:
    """Whether descriptors are available behind those that were seen to be, which all that are count among from then on.

    A list has its marks in each descriptor, so nothing is walked.
    """
    cdef uint32_t slot
    cdef uint16_t marks
    cdef bint more = False
    while packed.n_seen < packed.ring.size:
        slot = packed.ring.next_avail + packed.n_seen
        marks = packed.avail_marks
        if slot >= packed.ring.size:
            slot -= packed.ring.size
            marks ^= FR_MARKS
        # Acquire, as in load_flags: who is told that there is a chain goes on to read it.
        if fr_load_acquire_u16(desc_flags(<uint8_t *>packed.ring.desc + slot * FR_DESC_SIZE)) & FR_MARKS != marks:
            break
        packed.n_seen += 1
        more = True
    return more


cdef inline uint16_t next_unseen(const FrPacked *packed) noexcept nogil:
    """The position behind all that were seen to be available."""
    cdef uint32_t slot = packed.ring.next_avail + packed.n_seen
    cdef bint wrap = packed.avail_marks == FR_DESC_F_AVAIL
    if slot >= packed.ring.size:
        return position_of(slot - packed.ring.size, not wrap)
    return position_of(slot, wrap)


cdef int fp_enable_kicks(FrPacked *packed) noexcept nogil:
    if packed.ring.status != FR_OK:
        return packed.ring.status
    if packed.ring.event_idx:
        # Both fields at once, so that the driver never sees the new flags beside the old position.
        packed.event_flags = FR_EVENT_DESC
        fr_store_u32(packed.ring.used, event_of(next_unseen(packed), FR_EVENT_DESC))
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
    packed.ring.next_used = used & FR_OFF
    packed.avail_marks = FR_DESC_F_AVAIL if avail >> FR_WRAP_SHIFT else FR_DESC_F_USED
    packed.used_marks = FR_MARKS if used >> FR_WRAP_SHIFT else 0
    packed.n_taken = <uint32_t>ahead  # by whoever served the ring before
    return True


cdef uint16_t fp_next_avail(const FrPacked *packed) noexcept nogil:
    return position_of(packed.ring.next_avail, packed.avail_marks == FR_DESC_F_AVAIL)


cdef uint16_t fp_next_used(const FrPacked *packed) noexcept nogil:
    return position_of(packed.ring.next_used, packed.used_marks != 0)
