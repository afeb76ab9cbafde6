from acrn_dm.base.process._pthread cimport pthread_cond_t, pthread_mutex_t, pthread_t
from acrn_dm.devices.virtio_blk.native.engines._engine cimport BlkEngine, BlkIo

cdef enum:
    BLK_THREADS = 8           # of one queue at most

cdef struct Fifo:
    BlkIo *first
    BlkIo *last

cdef struct Pool:             # what the threads share with the engine, under *lock*
    pthread_mutex_t lock
    pthread_cond_t work
    Fifo todo
    Fifo done
    int fd
    int event_fd
    unsigned n_idle
    bint armed                # the engine sleeps: the next completion writes the eventfd
    bint closing


cdef class PoolEngine(BlkEngine):
    cdef Pool pool
    cdef Fifo batch           # submitted, not yet committed
    cdef unsigned n_batch
    cdef pthread_t threads[BLK_THREADS]
    cdef unsigned n_threads
    cdef void start_threads(self, unsigned wanted) noexcept nogil
    cdef void refuse(self) noexcept nogil
