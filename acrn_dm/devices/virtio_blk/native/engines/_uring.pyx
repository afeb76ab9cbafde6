# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The engine on io_uring, by liburing: a batch is one ``io_uring_enter``, and completions are read from memory.

The file is a registered one, so the kernel looks nothing up. Guest memory is not registered: that would keep all of it
in memory for good. The eventfd is silent while the queue's loop looks at the completions anyway.
"""

from acrn_dm.devices.virtio_blk.native.engines._engine cimport (
    BLK_IO_FALLOCATE, BLK_IO_SYNC, BLK_IO_WRITE, BlkEngine, BlkIo,
)
from libc.stdint cimport uint64_t
from posix.unistd cimport close as c_close, write as c_write

import os

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        pass
    enum:
        RWF_DSYNC

cdef extern from "devices/virtio_blk/native/engines/uring.h" nogil:
    int io_uring_queue_init(unsigned entries, io_uring *ring, unsigned flags)
    void io_uring_queue_exit(io_uring *ring)
    int io_uring_register_files(io_uring *ring, const int *fds, unsigned n)
    int io_uring_unregister_files(io_uring *ring)
    int io_uring_register_eventfd(io_uring *ring, int fd)
    int io_uring_cq_eventfd_toggle(io_uring *ring, bint on)
    io_uring_sqe *io_uring_get_sqe(io_uring *ring)
    void io_uring_sqe_set_data(io_uring_sqe *sqe, void *data)
    void *io_uring_cqe_get_data(const io_uring_cqe *cqe)
    int io_uring_submit(io_uring *ring)
    unsigned io_uring_sq_ready(const io_uring *ring)
    unsigned io_uring_cq_ready(const io_uring *ring)
    unsigned io_uring_peek_batch_cqe(io_uring *ring, io_uring_cqe **cqes, unsigned n)
    void io_uring_cq_advance(io_uring *ring, unsigned n)
    void blk_prep_rw(io_uring_sqe *sqe, bint write, const iovec *iov, unsigned n, uint64_t offset, int flags)
    void blk_prep_sync(io_uring_sqe *sqe)
    void blk_prep_fallocate(io_uring_sqe *sqe, int mode, uint64_t offset, uint64_t length)
    void blk_prep_cancel(io_uring_sqe *sqe)

cdef enum:
    REAPED = 64  # completions looked at in one go

BUILT = bool(BLK_HAS_LIBURING)


cdef class UringEngine(BlkEngine):
    """The engine of one queue for file *fd*, with *depth* requests in flight at most.

    Raises OSError: ENOSYS without liburing at the build or io_uring in the kernel, EPERM where the host forbids it,
    ENOMEM, EMFILE.
    """

    def __cinit__(self, int fd, unsigned depth):
        # An entry for each request, one for a flush, one for the cancellation.
        cdef int err = io_uring_queue_init(depth + 2, &self.ring, BLK_URING_FLAGS)
        if err < 0:
            err = io_uring_queue_init(depth + 2, &self.ring, 0)  # a kernel that knows no such flags
        self.open = err == 0
        self.allocates = True
        if err == 0:
            err = io_uring_register_files(&self.ring, &fd, 1)
        if err == 0:
            err = io_uring_register_eventfd(&self.ring, self.event_fd)
        if err < 0:
            raise OSError(-err, os.strerror(-err))
        self.quiet = io_uring_cq_eventfd_toggle(&self.ring, False) == 0

    def __dealloc__(self):
        if self.open:
            io_uring_queue_exit(&self.ring)
        if self.event_fd >= 0:
            c_close(self.event_fd)

    cdef void submit(self, BlkIo *io) noexcept nogil:
        cdef io_uring_sqe *sqe = io_uring_get_sqe(&self.ring)  # there is one for each request, see __cinit__
        if io.kind == BLK_IO_SYNC:
            blk_prep_sync(sqe)
        elif io.kind == BLK_IO_FALLOCATE:
            blk_prep_fallocate(sqe, io.mode, io.offset, io.length)
        else:
            blk_prep_rw(
                sqe, io.kind == BLK_IO_WRITE, <const iovec *>io.iov, io.n_iov, io.offset, RWF_DSYNC if io.durable else 0
            )
        io_uring_sqe_set_data(sqe, io)
        self.in_flight += 1

    cdef void commit(self) noexcept nogil:
        cdef uint64_t one = 1
        if io_uring_sq_ready(&self.ring) and io_uring_submit(&self.ring) <= 0:
            c_write(self.event_fd, &one, sizeof(one))  # the kernel is short of something: tried again soon

    cdef BlkIo *reap(self) noexcept nogil:
        cdef io_uring_cqe *cqes[REAPED]
        cdef BlkIo *first = NULL
        cdef BlkIo *last = NULL
        cdef BlkIo *io
        cdef unsigned n, i
        if not self.quiet:
            self.quiet = io_uring_cq_eventfd_toggle(&self.ring, False) == 0
        n = io_uring_peek_batch_cqe(&self.ring, cqes, REAPED)
        for i in range(n):
            io = <BlkIo *>io_uring_cqe_get_data(cqes[i])
            if io == NULL:
                continue  # the answer to a cancellation
            io.result = cqes[i].res
            io.next = NULL
            if last == NULL:
                first = io
            else:
                last.next = io
            last = io
            self.in_flight -= 1
        io_uring_cq_advance(&self.ring, n)
        return first

    cdef bint arm(self) noexcept nogil:
        if self.quiet:
            self.quiet = io_uring_cq_eventfd_toggle(&self.ring, True) != 0
        return io_uring_cq_ready(&self.ring) != 0

    cdef void cancel(self) noexcept nogil:
        cdef io_uring_sqe *sqe
        self.cancelled = True
        sqe = io_uring_get_sqe(&self.ring)
        if sqe != NULL:
            blk_prep_cancel(sqe)
            io_uring_sqe_set_data(sqe, NULL)
            io_uring_submit(&self.ring)

    def close(self):
        """End the ring; nothing may be in flight."""
        if self.open:
            self.open = False
            io_uring_unregister_files(&self.ring)  # a ring ends in its own time, and until then has the file: its locks
            io_uring_queue_exit(&self.ring)
        if self.event_fd >= 0:
            c_close(self.event_fd)
            self.event_fd = -1
