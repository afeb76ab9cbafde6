# The packed virtqueue of virtio 1.4 (2.8), device side: pop, push, publish, kicks. The calls of ``_split.pxd``.

from acrn_dm.ring.native._atomics cimport fr_store_u16, fr_store_u32
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_OK
from acrn_dm.ring.native.packed._layout cimport FR_LENGTH, FR_MARKS, desc_flags, desc_id, desc_len
from libc.stdint cimport uint8_t, uint16_t, uint32_t

# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef int fp_pop_batch(FrPacked *packed, FrBatch *batch, uint32_t limit) noexcept nogil
# Give the chain popped last back, as if it had never been taken.
cdef int fp_unpop(FrPacked *packed, const FrChain *chain) noexcept nogil
# Whether *chain*, which is in flight, ends at position *end*; which then is where it begins.
cdef bint fp_ends_at(const FrPacked *packed, const FrChain *chain, uint16_t *end) noexcept nogil
# Write the used descriptor of the chain with buffer id *head*. The driver does not see it before fp_publish, which
# stores the flags of the first one pushed: the driver looks at the next one only (2.8.2).
cdef inline int fp_push(FrPacked *packed, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint8_t *at = <uint8_t *>packed.ring.desc + <uint32_t>packed.ring.next_used * FR_DESC_SIZE
    cdef uint32_t n = packed.lengths[head] & FR_LENGTH
    cdef uint32_t slot = packed.ring.next_used + n
    # 2.8.3: WRITE says whether data was written anywhere; *written* counts what is whole from the start, and a request
    # that failed may have its status at the end of 0 bytes. So whatever may have been written to has it.
    cdef uint16_t flags = packed.used_marks | <uint16_t>(packed.lengths[head] >> 16)
    if n == 0:
        return FR_E_NOT_IN_FLIGHT
    fr_store_u32(desc_len(at), written)
    fr_store_u16(desc_id(at), head)
    if packed.n_pushed == 0:
        packed.first = at
        packed.first_flags = flags
    else:
        fr_store_u16(desc_flags(at), flags)
    packed.lengths[head] = 0
    packed.n_in_flight -= 1
    packed.n_pushed += n
    if slot >= packed.ring.size:
        slot -= packed.ring.size
        packed.used_marks ^= FR_MARKS
    packed.ring.next_used = <uint16_t>slot
    return FR_OK

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef bint fp_publish(FrPacked *packed) noexcept nogil
# The same, with the interrupt held back until fp_release: true while the driver has one to get.
cdef bint fp_hold(FrPacked *packed) noexcept nogil
# Hold nothing back any more; true when the driver, asked anew, still wants what was held back.
cdef bint fp_release(FrPacked *packed) noexcept nogil
cdef void fp_disable_kicks(FrPacked *packed) noexcept nogil
# FR_OK when more chains came since the last look (no kick tells of them: look again), FR_EMPTY when none did.
cdef int fp_enable_kicks(FrPacked *packed) noexcept nogil
# FR_OK when a chain is there, FR_EMPTY when none is; where the ring is broken its status.
cdef int fp_look(FrPacked *packed) noexcept nogil
# Where both sides begin: slot, and wrap counter in bit 15. False if these are no positions of a ring of this size.
cdef bint fp_begin(FrPacked *packed, uint16_t avail, uint16_t used) noexcept nogil
# Positions, of the next chain to take and of the next used descriptor.
cdef uint16_t fp_next_avail(const FrPacked *packed) noexcept nogil
cdef uint16_t fp_next_used(const FrPacked *packed) noexcept nogil
