# The device side of a virtqueue for data planes in C, which know no ring format: the calls of ``_split.pxd``, handed
# on. A chain is named by ``FrChain.head`` whatever the ring. One thread at a time uses a queue.

from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrVirtqueue
from acrn_dm.ring.native._split cimport (
    fr_disable_kicks, fr_enable_kicks, fr_pop_batch, fr_publish, fr_push, fr_raise, fr_unpop,
)
from libc.stdint cimport uint16_t, uint32_t

# Take up to *limit* chains: FR_OK, FR_EMPTY, or a negative status, which breaks the ring (but for FR_E_ROOM).
cdef inline int vq_pop_batch(FrVirtqueue *queue, FrBatch *batch, uint32_t limit) noexcept nogil:
    return fr_pop_batch(queue.split, batch, limit)

# Give the chain popped last back, as if it had never been taken.
cdef inline int vq_unpop(FrVirtqueue *queue, const FrChain *chain) noexcept nogil:
    return fr_unpop(queue.split, chain)

# Return the chain named *head*, of which *written* bytes were filled in. The driver does not see it before vq_publish.
cdef inline int vq_push(FrVirtqueue *queue, uint16_t head, uint32_t written) noexcept nogil:
    return fr_push(queue.split, head, written)

# Show the driver everything pushed; true when it wants an interrupt for that.
cdef inline bint vq_publish(FrVirtqueue *queue) noexcept nogil:
    return fr_publish(queue.split)

cdef inline void vq_disable_kicks(FrVirtqueue *queue) noexcept nogil:
    fr_disable_kicks(queue.split)

# FR_OK when more chains came meanwhile (no kick tells of them: look again), FR_EMPTY when none did.
cdef inline int vq_enable_kicks(FrVirtqueue *queue) noexcept nogil:
    return fr_enable_kicks(queue.split)

# The funnel from a negative status to GuestError (the driver's fault) or ValueError (the caller's).
cdef inline int vq_raise(FrVirtqueue *queue, int status) except -1 with gil:
    return fr_raise(queue.split, status)
