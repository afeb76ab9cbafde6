# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The engine on C threads: blocking system calls without the GIL, for kernels without io_uring.

Threads come with the load, take one request at a time and stay until ``close``. A thread that waits in the host's
kernel can't be called back: ``cancel`` lets go of what none has begun.
"""

from acrn_dm._fastring cimport FrSegment
from acrn_dm.base.process._pthread cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait,
    pthread_create, pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock,
)
from acrn_dm.devices.virtio_blk.native.engines._engine cimport (
    BLK_IO_FALLOCATE, BLK_IO_READ, BLK_IO_WRITE, BlkEngine, BlkIo,
)
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from posix.unistd cimport close as c_close, write as c_write

cdef extern from "<errno.h>" nogil:
    enum:
        ECANCELED

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<sys/uio.h>" nogil:
    """
    #include <unistd.h>
    """
    enum:
        RWF_DSYNC
    int64_t preadv2(int fd, const FrSegment *iov, int n, int64_t offset, int flags)
    int64_t pwritev2(int fd, const FrSegment *iov, int n, int64_t offset, int flags)
    int fdatasync(int fd)


cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, int64_t offset, int64_t length)


cdef void put(Fifo *fifo, BlkIo *io) noexcept nogil:
    io.next = NULL
    if fifo.first == NULL:
        fifo.first = io
    else:
        fifo.last.next = io
    fifo.last = io


cdef BlkIo *take(Fifo *fifo) noexcept nogil:
    cdef BlkIo *io = fifo.first
    if io != NULL:
        fifo.first = io.next
    return io


cdef int64_t attempt(int fd, const BlkIo *io) noexcept nogil:
    if io.kind == BLK_IO_READ:
        return preadv2(fd, io.iov, <int>io.n_iov, <int64_t>io.offset, 0)
    if io.kind == BLK_IO_WRITE:
        return pwritev2(fd, io.iov, <int>io.n_iov, <int64_t>io.offset, RWF_DSYNC if io.durable else 0)
    if io.kind == BLK_IO_FALLOCATE:
        return fallocate(fd, io.mode, <int64_t>io.offset, <int64_t>io.length)
    return fdatasync(fd)


cdef void execute(int fd, BlkIo *io) noexcept nogil:
    while True:
        io.result = attempt(fd, io)
        if io.result >= 0:
            return
        if errno != EINTR:
            io.result = -errno
            return


cdef void *work(void *argument) noexcept nogil:
    """A thread: until the pool closes."""
    cdef Pool *pool = <Pool *>argument
    cdef BlkIo *io
    cdef uint64_t one = 1
    pthread_mutex_lock(&pool.lock)
    while True:
        io = take(&pool.todo)
        if io == NULL:
            if pool.closing:
                break
            pool.n_idle += 1
            pthread_cond_wait(&pool.work, &pool.lock)
            pool.n_idle -= 1
            continue
        pthread_mutex_unlock(&pool.lock)
        execute(pool.fd, io)
        pthread_mutex_lock(&pool.lock)
        put(&pool.done, io)
        if pool.armed:
            pool.armed = False
            c_write(pool.event_fd, &one, sizeof(one))
    pthread_mutex_unlock(&pool.lock)
    return NULL


cdef class PoolEngine(BlkEngine):
    """The engine of one queue for file *fd*."""

    def __cinit__(self, int fd, unsigned depth):
        self.pool.fd = fd
        self.allocates = True
        self.pool.event_fd = self.event_fd
        pthread_mutex_init(&self.pool.lock, NULL)
        pthread_cond_init(&self.pool.work, NULL)

    def __dealloc__(self):
        self.close()
        pthread_cond_destroy(&self.pool.work)
        pthread_mutex_destroy(&self.pool.lock)

    cdef void submit(self, BlkIo *io) noexcept nogil:
        self.in_flight += 1
        self.n_batch += 1
        put(&self.batch, io)

    cdef void commit(self) noexcept nogil:
        cdef unsigned waiting = self.n_batch
        cdef unsigned idle
        if waiting == 0:
            return
        pthread_mutex_lock(&self.pool.lock)
        if self.pool.todo.first == NULL:
            self.pool.todo.first = self.batch.first
        else:
            self.pool.todo.last.next = self.batch.first
        self.pool.todo.last = self.batch.last
        idle = self.pool.n_idle
        pthread_mutex_unlock(&self.pool.lock)
        self.batch.first, self.n_batch = NULL, 0
        if waiting > idle:
            self.start_threads(waiting - idle)
        if self.n_threads == 0:
            self.refuse()
        for _ in range(min(waiting, idle)):
            pthread_cond_signal(&self.pool.work)

    cdef void start_threads(self, unsigned wanted) noexcept nogil:
        """More threads, up to the limit. They take no signals, which are Python's."""
        cdef sigset_t every, before
        if self.n_threads == BLK_THREADS:
            return
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        while wanted > 0 and self.n_threads < BLK_THREADS:
            if pthread_create(&self.threads[self.n_threads], NULL, work, &self.pool) != 0:
                break
            self.n_threads += 1
            wanted -= 1
        pthread_sigmask(SIG_SETMASK, &before, NULL)

    cdef void refuse(self) noexcept nogil:
        """The host gives us no thread: what waits has failed."""
        cdef uint64_t one = 1
        cdef BlkIo *io = take(&self.pool.todo)
        while io != NULL:
            io.result = -EAGAIN
            put(&self.pool.done, io)
            io = take(&self.pool.todo)
        c_write(self.event_fd, &one, sizeof(one))

    cdef BlkIo *reap(self) noexcept nogil:
        cdef BlkIo *first
        cdef BlkIo *io
        pthread_mutex_lock(&self.pool.lock)
        self.pool.armed = False
        first = self.pool.done.first
        self.pool.done.first = NULL
        pthread_mutex_unlock(&self.pool.lock)
        io = first
        while io != NULL:
            self.in_flight -= 1
            io = io.next
        return first

    cdef bint arm(self) noexcept nogil:
        cdef bint some
        pthread_mutex_lock(&self.pool.lock)
        some = self.pool.done.first != NULL
        self.pool.armed = not some
        pthread_mutex_unlock(&self.pool.lock)
        return some

    cdef void cancel(self) noexcept nogil:
        cdef BlkIo *io
        self.cancelled = True
        self.commit()
        pthread_mutex_lock(&self.pool.lock)
        io = take(&self.pool.todo)
        while io != NULL:
            io.result = -ECANCELED
            put(&self.pool.done, io)
            io = take(&self.pool.todo)
        pthread_mutex_unlock(&self.pool.lock)

    def close(self):
        """End the threads; nothing may be in flight."""
        cdef unsigned i
        with nogil:
            pthread_mutex_lock(&self.pool.lock)
            self.pool.closing = True
            pthread_mutex_unlock(&self.pool.lock)
            pthread_cond_broadcast(&self.pool.work)
            for i in range(self.n_threads):
                pthread_join(self.threads[i], NULL)
        self.n_threads = 0
        if self.event_fd >= 0:
            c_close(self.event_fd)
            self.event_fd = -1
