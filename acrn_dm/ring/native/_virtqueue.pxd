# The device side of a virtqueue for data planes in C, which know no ring format: calls of ``_split.pxd`` or of
# ``_packed.pxd``. A chain is named by ``FrChain.head`` whatever the ring. One thread at a time uses a queue.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from acrn_dm.ring.native._records cimport FR_OVERLAID, FR_PACKED, FR_SPLIT, FrBatch, FrChain, FrRing, FrVirtqueue
from acrn_dm.ring.native._status cimport FR_EMPTY, FR_OK, raise_status
from acrn_dm.ring.native.packed._packed cimport (
    fp_disable_kicks, fp_enable_kicks, fp_ends_at, fp_hold, fp_look, fp_next_avail, fp_publish, fp_push, fp_release,
    fp_unpop,
)
from acrn_dm.ring.native.packed._pop cimport fp_pop_batch
from acrn_dm.ring.native.split._pop cimport fr_pop_batch
from acrn_dm.ring.native.split._split cimport (
    fr_disable_kicks, fr_enable_kicks, fr_ends_at, fr_hold, fr_look, fr_publish, fr_push, fr_release,
    fr_unpop,
)
from libc.stdint cimport uint16_t, uint32_t

# What the formats share.
cdef inline FrRing *vq_ring(FrVirtqueue *queue) noexcept nogil:
    return &queue.packed_ring.ring if queue.packed_ring != NULL else queue.split

# Take up to *limit* chains: FR_OK, FR_EMPTY, or a negative status, which breaks the ring (but for FR_E_ROOM).
cdef inline int vq_pop_batch(FrVirtqueue *queue, FrBatch *batch, uint32_t limit) noexcept nogil:
    if queue.kind == FR_SPLIT:
        return fr_pop_batch(queue.split, batch, limit)
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.pop_batch(queue.overlay, batch, limit)
    return fp_pop_batch(queue.packed_ring, batch, limit)

# Give the chain popped last back, as if it had never been taken.
cdef inline int vq_unpop(FrVirtqueue *queue, const FrChain *chain) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.unpop(queue.overlay, chain)
    return fp_unpop(queue.packed_ring, chain) if queue.kind == FR_PACKED else fr_unpop(queue.split, chain)

# Return the chain named *head*, of which *written* bytes were filled in. The driver does not see it before vq_publish.
cdef inline int vq_push(FrVirtqueue *queue, uint16_t head, uint32_t written) noexcept nogil:
    if queue.kind == FR_SPLIT:
        return fr_push(queue.split, head, written)
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.push(queue.overlay, head, written)
    return fp_push(queue.packed_ring, head, written)

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef inline bint vq_publish(FrVirtqueue *queue) noexcept nogil:
    if queue.kind == FR_SPLIT:
        return fr_publish(queue.split)
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.publish(queue.overlay)
    return fp_publish(queue.packed_ring)

# The same for a driver that is interrupted later (coalescing): true while it has an interrupt to get.
cdef inline bint vq_hold(FrVirtqueue *queue) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.hold(queue.overlay)
    return fp_hold(queue.packed_ring) if queue.kind == FR_PACKED else fr_hold(queue.split)

# Now: true when the driver, asked anew, still wants it. False where it has asked for something else since.
cdef inline bint vq_release(FrVirtqueue *queue) noexcept nogil:
    return fp_release(queue.packed_ring) if queue.packed_ring != NULL else fr_release(queue.split)

cdef inline void vq_disable_kicks(FrVirtqueue *queue) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        queue.overlay.disable_kicks(queue.overlay)
    elif queue.kind == FR_PACKED:
        fp_disable_kicks(queue.packed_ring)
    else:
        fr_disable_kicks(queue.split)

# FR_OK when more chains came meanwhile (no kick tells of them: look again), FR_EMPTY when none did.
cdef inline int vq_enable_kicks(FrVirtqueue *queue) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.enable_kicks(queue.overlay)
    return fp_enable_kicks(queue.packed_ring) if queue.kind == FR_PACKED else fr_enable_kicks(queue.split)

# Where in the ring the next chain is taken, as FrChain.position has it.
cdef inline uint16_t vq_next(const FrVirtqueue *queue) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.next(queue.overlay)
    return fp_next_avail(queue.packed_ring) if queue.kind == FR_PACKED else queue.split.next_avail

# Whether *chain*, which is in flight, ends at position *end*; which then is where it begins.
cdef inline bint vq_ends_at(const FrVirtqueue *queue, const FrChain *chain, uint16_t *end) noexcept nogil:
    if queue.packed_ring != NULL:
        return fp_ends_at(queue.packed_ring, chain, end)
    return fr_ends_at(queue.split, chain, end)

# Whether chains are there that were not taken: FR_OK, FR_EMPTY, or a negative status.
cdef inline int vq_look(FrVirtqueue *queue) noexcept nogil:
    if fr_unlikely(queue.kind == FR_OVERLAID):
        return queue.overlay.look(queue.overlay)
    return fp_look(queue.packed_ring) if queue.kind == FR_PACKED else fr_look(queue.split)

# The funnel from a negative status to GuestError (the driver's fault) or ValueError (the caller's).
cdef inline int vq_raise(FrVirtqueue *queue, int status) except -1 with gil:
    cdef FrRing *ring = vq_ring(queue)
    return raise_status(status, ring.fault_index, ring.fault_value)
