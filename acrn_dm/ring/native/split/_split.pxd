# The split virtqueue of virtio 1.4 (2.7), device side: pop, push, publish, kicks.

from acrn_dm.ring.native._atomics cimport fr_store_u32
from acrn_dm.ring.native._memory cimport FrSegment
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrRing
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_OK
from acrn_dm.ring.native.split._layout cimport used_element, used_element_len
from libc.stdint cimport uint8_t, uint16_t, uint32_t

# Take one chain; *segments* has room for *room* of them. FR_EMPTY, or a negative status, which breaks the ring.
cdef int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil
# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil
# Give the chain popped last back, as if it had never been taken.
cdef int fr_unpop(FrRing *ring, const FrChain *chain) noexcept nogil
# Whether *chain*, which is in flight, ends at index *end*; which then is where it begins.
cdef bint fr_ends_at(const FrRing *ring, const FrChain *chain, uint16_t *end) noexcept nogil
# Store a used element. The driver does not see it before fr_publish.
cdef inline int fr_push(FrRing *ring, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint8_t *element = used_element(ring.used, ring.next_used & (ring.size - 1))
    if head >= ring.size or not ring.in_flight[head]:
        return FR_E_NOT_IN_FLIGHT
    fr_store_u32(element, head)
    fr_store_u32(used_element_len(element), written)
    ring.in_flight[head] = False
    ring.next_used += 1
    return FR_OK

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef bint fr_publish(FrRing *ring) noexcept nogil
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
