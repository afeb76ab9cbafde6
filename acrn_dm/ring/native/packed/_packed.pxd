# The packed virtqueue of virtio 1.4 (2.8), device side: pop, push, publish, kicks. The calls of ``_split.pxd``.

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_u32, fr_store_release_u16, fr_store_u16, fr_store_u32, fr_store_u64, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_F_WRITE, FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrPackedWalk
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_OK
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_USED, FR_EVENT_DESC, FR_EVENT_DISABLE, FR_EVENT_FLAGS, FR_LENGTH, FR_MARKS, FR_OFF, desc_flags, desc_id,
    desc_len, word_of,
)
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

# The rest of a batch, up to *stop*, from *chain* on, with which ``_pop.pxd`` has come to *status* and whose position is
# known unless it is the first one. Returns as fp_pop_batch does.
cdef int fp_pop_rest(
    FrPacked *packed, FrBatch *batch, FrChain *chain, const FrChain *stop, int status, FrPackedWalk walk,
) noexcept nogil
# Give the chain popped last back, as if it had never been taken.
cdef int fp_unpop(FrPacked *packed, const FrChain *chain) noexcept nogil
# Whether *chain*, which is in flight, ends at position *end*; which then is where it begins.
cdef bint fp_ends_at(const FrPacked *packed, const FrChain *chain, uint16_t *end) noexcept nogil
# Write the used descriptor of the chain with buffer id *head*. The driver does not see it before fp_publish, which
# stores the flags of the first one pushed: the driver looks at the next one only (2.8.2).
cdef inline int fp_push(FrPacked *packed, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint32_t length = packed.lengths[head]
    cdef uint32_t slot = packed.next_used
    cdef uint8_t *at = <uint8_t *>packed.ring.desc + FR_DESC_SIZE * <size_t>slot
    if fr_unlikely(length == 0):
        return FR_E_NOT_IN_FLIGHT
    packed.lengths[head] = 0
    if slot == packed.published_used:
        fr_store_u32(desc_len(at), written)
        fr_store_u16(desc_id(at), head)
        if fr_unlikely(packed.first_flags != length >> 16):
            packed.first_flags = length >> 16
    else:
        fr_store_u64(desc_len(at), word_of(written, head, packed.used_marks | length >> 16))
    slot += length & FR_LENGTH
    if fr_unlikely(slot >= packed.ring.size):
        slot -= packed.ring.size
        packed.used_marks ^= FR_MARKS
    packed.next_used = slot
    return FR_OK

# Whether the driver asked to be told of the last *n* descriptors, which lie before next_used (2.8.10).
cdef inline bint fp_wants_interrupt(const FrPacked *packed, uint32_t n) noexcept nogil:
    # One load of both fields: off and flags are of the same moment, whatever the driver changes first.
    cdef uint32_t event = fr_load_u32(packed.ring.avail)
    cdef uint32_t flags = (event >> 16) & FR_EVENT_FLAGS
    cdef int32_t off = event & FR_OFF
    cdef int32_t new = packed.next_used
    if flags != FR_EVENT_DESC or not packed.ring.event_idx:  # the reserved flag asks for nothing that could be kept
        return flags != FR_EVENT_DISABLE
    if (event ^ packed.used_marks) & FR_DESC_F_USED:  # USED is where the wrap counter is, and set as that is
        off -= packed.ring.size  # of the time round before
    # Whether *off* is one of [new - n, new), modulo 2^16 as in 2.7.10; n is at most size, so nothing wraps twice.
    return <uint16_t>(new - off - 1) < <uint16_t>n

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef inline bint fp_publish(FrPacked *packed) noexcept nogil:
    cdef uint32_t old = packed.published_used
    cdef uint32_t new = packed.next_used
    cdef uint32_t n = new - old
    cdef uint16_t marks = packed.used_marks
    cdef uint8_t *at = <uint8_t *>packed.ring.desc + FR_DESC_SIZE * <size_t>old
    if marks != packed.published_marks:
        n += packed.ring.size
    if n == 0:
        return False
    # Release: the driver that sees these flags also sees the other descriptors of the batch, len and id of each, and
    # the data in the buffers. It looks at no later descriptor before this one is used (2.8.2).
    if packed.first_flags != 0:  # a branch, which is foretold: nothing waits for the load
        fr_store_release_u16(desc_flags(at), packed.published_marks | FR_DESC_F_WRITE)
    else:
        fr_store_release_u16(desc_flags(at), packed.published_marks)
    # Full fence between our store of the flags and the load of its wish. The driver does the mirror image: it stores
    # its wish for an interrupt, fences, and looks at the flags once more. Were our load to pass our store, both could
    # read the old value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    packed.published_used, packed.published_marks = new, marks
    return fp_wants_interrupt(packed, n)

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
# Chains popped and neither pushed nor given back: counted when somebody asks, not as they come and go.
cdef uint32_t fp_in_flight(const FrPacked *packed) noexcept nogil
cdef uint16_t fp_next_used(const FrPacked *packed) noexcept nogil
