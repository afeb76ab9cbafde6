from acrn_dm.devices.virtio_blk.native.engines._engine cimport BlkEngine, BlkIo

cdef extern from "devices/virtio_blk/native/engines/uring.h" nogil:
    enum:
        BLK_HAS_LIBURING
        BLK_URING_FLAGS
    struct io_uring:
        pass
    struct io_uring_sqe:
        pass
    struct io_uring_cqe:
        int res


cdef class UringEngine(BlkEngine):
    cdef io_uring ring
    cdef bint open
    cdef bint quiet           # the eventfd is off, because we look ourselves
