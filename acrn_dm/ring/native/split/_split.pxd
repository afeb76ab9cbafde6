# The split virtqueue of virtio 1.4 (2.7), device side: pop, push, publish, kicks.

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_u16, fr_store_release_u16, fr_store_u32_pair, fr_unlikely,
)
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrRing, FrWalk
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_OK
from acrn_dm.ring.native.split._layout cimport (
    FR_AVAIL_F_NO_INTERRUPT, avail_flags, used_element, used_event, used_idx,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    FR_N_HEADS = 1 << 16      # what a 16 bit head can say

# The end of a batch before *chain*, whose entry at *index* says that it begins at *head*, which is none or in flight.
cdef int fr_pop_refused(
    FrRing *ring, FrBatch *batch, const FrChain *chain, uint16_t index, uint16_t head,
) noexcept nogil
# The rest of a batch, up to *stop*, from *chain* on, which is in flight and whose walk was begun (``_pop.pxd``). Both
# return as fr_pop_batch does.
cdef int fr_pop_rest(FrRing *ring, FrBatch *batch, FrChain *chain, const FrChain *stop, FrWalk walk) noexcept nogil
# Give the chain popped last back, as if it had never been taken.
cdef int fr_unpop(FrRing *ring, const FrChain *chain) noexcept nogil
# Whether *chain*, which is in flight, ends at index *end*; which then is where it begins.
cdef bint fr_ends_at(const FrRing *ring, const FrChain *chain, uint16_t *end) noexcept nogil
# Store a used element. The driver does not see it before fr_publish.
cdef inline int fr_push(FrRing *ring, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint8_t *in_flight = ring.in_flight + head
    cdef size_t index = ring.next_used
    if fr_unlikely(not in_flight[0]):  # as it is for what is no head at all
        return FR_E_NOT_IN_FLIGHT
    in_flight[0] = False
    fr_store_u32_pair(used_element(ring.used, index & ring.mask), head, written)
    # Last: behind a store that could be to anywhere, the next push would have to load it again.
    ring.next_used = <uint16_t>(index + 1)
    return FR_OK

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef inline bint fr_publish(FrRing *ring) noexcept nogil:
    cdef uint16_t new = ring.next_used
    cdef uint16_t old = ring.published_used
    cdef uint16_t event
    if new == old:
        return False
    # Release: the driver that sees this idx also sees the elements and the data in the buffers (2.7.8.2).
    fr_store_release_u16(used_idx(ring.used), new)
    # Full fence between our store of idx and the load of its wish. The driver does the mirror image: it stores its wish
    # for an interrupt, fences, and looks at idx once more. Were our load to pass our store, both could read the old
    # value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    ring.published_used = new
    if not ring.event_idx:
        return not fr_load_u16(avail_flags(ring.avail)) & FR_AVAIL_F_NO_INTERRUPT
    event = fr_load_u16(used_event(ring.avail, ring.size))
    # 2.7.10: whether idx passed event + 1 in this batch. At most size <= 2^15 elements, so the difference is exact.
    return <uint16_t>(new - event - 1) < <uint16_t>(new - old)

# The same, with the interrupt held back until fr_release: true while the driver has one to get.
cdef bint fr_hold(FrRing *ring) noexcept nogil
# Hold nothing back any more; true when the driver, asked anew, still wants what was held back.
cdef bint fr_release(FrRing *ring) noexcept nogil
cdef void fr_disable_kicks(FrRing *ring) noexcept nogil
# FR_OK when more chains came meanwhile (no kick tells of them: look again), FR_EMPTY when none did.
cdef int fr_enable_kicks(FrRing *ring) noexcept nogil
# FR_OK when chains are there that were not taken, by avail.idx as it is now, FR_EMPTY when none are.
cdef int fr_look(FrRing *ring) noexcept nogil
# Refresh seen_avail from avail.idx.
cdef int fr_load_avail(FrRing *ring) noexcept nogil

# The funnel from a negative status to GuestError (the driver's fault) or ValueError (the caller's).
cdef int fr_raise(const FrRing *ring, int status) except -1 with gil
