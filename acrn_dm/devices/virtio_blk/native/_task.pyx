# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Requests on their way: chains copied out of the batch, data moved in pieces however short each transfer is."""

from acrn_dm._fastring cimport FrChain, FrSegment
from acrn_dm.devices.virtio_blk.native._request cimport (
    BLK_DISCARD, BLK_HEADER, BLK_MAX_EXTENTS, BLK_READ, BLK_SECURE_ERASE, BLK_WRITE_ZEROES, BlkExtent, BlkLimits,
    blk_parse, blk_window,
)
from acrn_dm.devices.virtio_blk.native.engines._engine cimport BLK_IO_READ
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "<sys/uio.h>" nogil:
    int64_t preadv2(int fd, const void *iov, int n, int64_t offset, int flags)
    int64_t pwritev2(int fd, const void *iov, int n, int64_t offset, int flags)


cdef bint task_set(BlkTask *task, const FrChain *chain) noexcept nogil:
    cdef size_t n = chain.n_out + chain.n_in
    task.memory, task.extents = NULL, NULL
    task.err, task.attempts, task.volatile_change = 0, 0, False
    task.chain = chain[0]
    task.chain.segments = task.few
    if n > BLK_FEW:
        task.memory = <FrSegment *>malloc(2 * n * sizeof(FrSegment))
        if task.memory == NULL:
            return False
        task.chain.segments = task.memory
    memcpy(task.chain.segments, chain.segments, n * sizeof(FrSegment))
    task.iov = task.chain.segments + n
    return True


cdef int task_parse(BlkTask *task, const BlkLimits *limits) noexcept nogil:
    cdef BlkExtent extents[BLK_MAX_EXTENTS]
    cdef int status = blk_parse(&task.chain, limits, &task.request, extents)
    cdef size_t size = task.request.n_extents * sizeof(BlkExtent)
    if status == 0 and task.request.op in (BLK_DISCARD, BLK_WRITE_ZEROES, BLK_SECURE_ERASE):
        task.extents = <BlkExtent *>malloc(size)
        if task.extents != NULL:
            memcpy(task.extents, extents, size)
        else:
            status = 1  # an I/O error
    return status


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
    while n < task.n_iov and n < BLK_IOV_MAX and size < BLK_PIECE:
        size += task.iov[n].len
        n += 1
    task.trimmed = size - BLK_PIECE if size > BLK_PIECE else 0
    task.iov[n - 1].len -= task.trimmed
    task.io.iov, task.io.n_iov, task.io.offset = task.iov, n, task.offset


cdef int64_t task_now(BlkTask *task, int fd, int flags) noexcept nogil:
    cdef int64_t result
    task_piece(task)
    if task.io.kind == BLK_IO_READ:
        result = preadv2(fd, task.io.iov, <int>task.io.n_iov, <int64_t>task.io.offset, flags)
    else:
        result = pwritev2(fd, task.io.iov, <int>task.io.n_iov, <int64_t>task.io.offset, flags)
    return -errno if result < 0 else result


cdef void task_moved(BlkTask *task, uint32_t moved) noexcept nogil:
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


cdef void task_clear(BlkTask *task) noexcept nogil:
    free(task.memory)
    free(task.extents)
    task.memory, task.extents = NULL, NULL
