# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Requests on their way: chains copied out of the batch, data moved in pieces however short each transfer is."""

from acrn_dm._fastring cimport FrChain, FrSegment
from acrn_dm.devices.virtio_blk.native._request cimport (
    BLK_DISCARD, BLK_HEADER, BLK_READ, BLK_WRITE, BlkExtent, BlkRequest, blk_window,
)
from acrn_dm.virtio.native._segments cimport gather, scatter
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef enum:                    # linux/falloc.h
    KEEP_SIZE = 0x01
    PUNCH_HOLE = 0x02
    ZERO_RANGE = 0x10


cdef bint task_set(
    BlkTask *task, const FrChain *chain, const BlkRequest *request, const BlkExtent *extents
) noexcept nogil:
    cdef size_t n = chain.n_out + chain.n_in
    cdef size_t size = request.n_extents * sizeof(BlkExtent)
    task.memory, task.extents, task.bounce.hva = NULL, NULL, NULL
    task.err, task.attempts, task.volatile_change = 0, 0, False
    task.request = request[0]
    task.chain = chain[0]
    task.chain.segments = task.few
    if n > BLK_FEW:
        task.memory = <FrSegment *>malloc(2 * n * sizeof(FrSegment))
        if task.memory == NULL:
            return False
        task.chain.segments = task.memory
    if size > 0:
        task.extents = <BlkExtent *>malloc(size)
        if task.extents == NULL:
            free(task.memory)
            return False
        memcpy(task.extents, extents, size)
    memcpy(task.chain.segments, chain.segments, n * sizeof(FrSegment))
    task.iov = task.chain.segments + n
    return True


cdef void task_data(BlkTask *task, uint64_t start) noexcept nogil:
    cdef const FrChain *chain = &task.chain
    task.offset = start + task.request.offset
    task.left = task.request.length
    if task.request.op == BLK_READ:
        task.n_iov = blk_window(chain.segments + chain.n_out, chain.n_in, 0, task.left, task.iov)
    else:
        task.n_iov = blk_window(chain.segments, chain.n_out, BLK_HEADER, task.left, task.iov)


cdef void task_piece(BlkTask *task) noexcept nogil:
    cdef size_t size = 0
    cdef uint32_t n = 0
    task.io.offset = task.offset
    if task.bounce.hva != NULL:
        task.bounce.len = min(task.left, <uint32_t>BLK_BOUNCE)
        if task.request.op == BLK_WRITE:
            gather(task.iov, task.n_iov, 0, <uint8_t *>task.bounce.hva, <uint32_t>task.bounce.len)
        task.io.iov, task.io.n_iov = &task.bounce, 1
        return
    while n < task.n_iov and n < BLK_IOV_MAX and size < BLK_PIECE:
        size += task.iov[n].len
        n += 1
    task.trimmed = size - BLK_PIECE if size > BLK_PIECE else 0
    task.iov[n - 1].len -= task.trimmed
    task.io.iov, task.io.n_iov = task.iov, n


cdef void task_moved(BlkTask *task, uint32_t moved) noexcept nogil:
    if task.bounce.hva != NULL:
        if task.request.op == BLK_READ:
            scatter(task.iov, task.n_iov, 0, <uint8_t *>task.bounce.hva, moved)
    else:
        task.iov[task.io.n_iov - 1].len += task.trimmed
        task.trimmed = 0
    task.offset += moved
    task.left -= moved
    while task.n_iov > 0 and moved >= task.iov.len:
        moved -= <uint32_t>task.iov.len
        task.iov += 1
        task.n_iov -= 1
    if task.n_iov > 0:
        task.iov.hva = <uint8_t *>task.iov.hva + moved
        task.iov.len -= moved


cdef bint task_bounce(BlkTask *task) noexcept nogil:
    return posix_memalign(&task.bounce.hva, BLK_PAGE, BLK_BOUNCE) == 0


cdef bint task_range(BlkTask *task, uint64_t start) noexcept nogil:
    cdef const BlkExtent *extent
    while task.left > 0:
        extent = &task.extents[task.request.n_extents - task.left]
        if extent.length > 0:
            task.io.offset, task.io.length = start + extent.offset, extent.length
            task.io.mode = KEEP_SIZE | (PUNCH_HOLE if extent.unmap or task.request.op == BLK_DISCARD else ZERO_RANGE)
            return True
        task.left -= 1
    return False


cdef void task_clear(BlkTask *task) noexcept nogil:
    free(task.memory)
    free(task.extents)
    free(task.bounce.hva)
    task.memory, task.extents, task.bounce.hva = NULL, NULL, NULL
