# The packed virtqueue of virtio 1.4 (2.8), device side: pop, push, publish, kicks. The calls of ``_split.pxd``.

from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_u32, fr_store_release_u64, fr_store_u64, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrPackedWalk
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_OK
from acrn_dm.ring.native.packed._layout cimport (
    FR_EVENT_DESC, FR_EVENT_DISABLE, FR_EVENT_FLAGS, FR_LENGTH, FR_MARKS, FR_OFF, FR_WRAP_SHIFT, desc_word, word_of,
)
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FP_NOT_QUICK = 2          # beside FR_OK, FR_EMPTY and negative numbers: fp_pop_rest is to go on with the chain

# The rest of a batch, up to *stop*, from *chain* on, with which ``_pop.pxd`` has come to *status*: where that is
# FP_NOT_QUICK its walk was begun. Returns as fp_pop_batch does.
cdef int fp_pop_rest(
    FrPacked *packed, FrBatch *batch, FrChain *chain, const FrChain *stop, int status, FrPackedWalk walk,
) noexcept nogil
# *n_chains* chains of *n* descriptors in all were taken.
cdef inline void fp_advance(FrPacked *packed, uint32_t n, uint32_t n_chains) noexcept nogil:
    cdef uint32_t slot = packed.ring.next_avail + n
    packed.n_in_flight += n_chains
    packed.n_taken += n
    packed.n_seen -= min(packed.n_seen, n)
    if slot >= packed.ring.size:
        slot -= packed.ring.size
        packed.avail_marks ^= FR_MARKS
    packed.ring.next_avail = <uint16_t>slot

# Give the chain popped last back, as if it had never been taken.
cdef int fp_unpop(FrPacked *packed, const FrChain *chain) noexcept nogil
# Whether *chain*, which is in flight, ends at position *end*; which then is where it begins.
cdef bint fp_ends_at(const FrPacked *packed, const FrChain *chain, uint16_t *end) noexcept nogil
# Write the used descriptor of the chain with buffer id *head*. The driver does not see it before fp_publish, which
# stores the first one pushed: the driver looks at the next one only (2.8.2).
cdef inline int fp_push(FrPacked *packed, uint16_t head, uint32_t written) noexcept nogil:
    cdef uint32_t length = packed.lengths[head]
    cdef uint32_t slot = packed.ring.next_used
    # 2.8.3: WRITE says whether data was written anywhere; *written* counts what is whole from the start, and a request
    # that failed may have its status at the end of 0 bytes. So whatever may have been written to has it.
    cdef uint64_t word = word_of(written, head, packed.used_marks | length >> 16)
    if fr_unlikely(length == 0):
        return FR_E_NOT_IN_FLIGHT
    packed.lengths[head] = 0
    packed.n_in_flight -= 1
    if slot == packed.ring.published_used:
        packed.first = word
    else:
        fr_store_u64(<uint8_t *>desc_word(packed.ring.desc + FR_DESC_SIZE * <size_t>slot), word)
    slot += length & FR_LENGTH
    if fr_unlikely(slot >= packed.ring.size):
        slot -= packed.ring.size
        packed.used_marks ^= FR_MARKS
    packed.ring.next_used = <uint16_t>slot
    return FR_OK

# Whether the driver asked to be told of the last *n* descriptors, which lie before next_used (2.8.10).
cdef inline bint fp_wants_interrupt(const FrPacked *packed, uint32_t n) noexcept nogil:
    # One load of both fields: off and flags are of the same moment, whatever the driver changes first.
    cdef uint32_t event = fr_load_u32(packed.ring.avail)
    cdef uint32_t flags = (event >> 16) & FR_EVENT_FLAGS
    cdef int32_t off = event & FR_OFF
    cdef int32_t new = packed.ring.next_used
    if flags != FR_EVENT_DESC or not packed.ring.event_idx:  # the reserved flag asks for nothing that could be kept
        return flags != FR_EVENT_DISABLE
    if ((event >> FR_WRAP_SHIFT) & 1) != (packed.used_marks != 0):
        off -= packed.ring.size  # of the time round before
    # Whether *off* is one of [new - n, new), modulo 2^16 as in 2.7.10; n is at most size, so nothing wraps twice.
    return <uint16_t>(new - off - 1) < <uint16_t>n

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef inline bint fp_publish(FrPacked *packed) noexcept nogil:
    cdef uint32_t old = packed.ring.published_used
    cdef uint32_t n = packed.ring.next_used - old
    if packed.used_marks != packed.published_marks:
        n += packed.ring.size
    if n == 0:
        return False
    # Release: the driver that sees these flags also sees the other descriptors of the batch, len and id of each, and
    # the data in the buffers. It looks at no later descriptor before this one is used (2.8.2).
    fr_store_release_u64(<uint8_t *>desc_word(packed.ring.desc + FR_DESC_SIZE * <size_t>old), packed.first)
    packed.ring.published_used, packed.published_marks = packed.ring.next_used, packed.used_marks
    packed.n_taken -= n
    # Full fence between our store of the flags and the load of its wish. The driver does the mirror image: it stores
    # its wish for an interrupt, fences, and looks at the flags once more. Were our load to pass our store, both could
    # read the old value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
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
cdef uint16_t fp_next_used(const FrPacked *packed) noexcept nogil
