# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Requests that wait for a limit. Only the first of each list is counted in the buckets, for the time at which it
may begin, so that queues of one disk have equal parts of its limits however deep they are.
"""

from acrn_dm.devices.virtio_blk.native._request cimport (
    BLK_GET_ID, BLK_READ, BLK_WRITE, BLK_WRITE_ZEROES,
)
from acrn_dm.devices.virtio_blk.native.tasks._task cimport BlkTask, tasks_put, tasks_take
from acrn_dm.devices.virtio_blk.native.throttle._throttle cimport BlkThrottle
from acrn_dm.virtio.native._counters cimport monotonic_ns
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport itimerspec
from posix.unistd cimport close as c_close

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
        TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *time, itimerspec *before)

cdef enum:
    READS = 0
    WRITES = 1
    OTHERS = 2                # count as writes of no bytes


cdef inline int way_of(const BlkTask *task) noexcept nogil:
    if task.request.op == BLK_READ:
        return READS
    return WRITES if task.request.op == BLK_WRITE or task.request.op == BLK_WRITE_ZEROES else OTHERS


cdef uint64_t bytes_of(const BlkTask *task) noexcept nogil:
    """Bytes that count: what is discarded is not moved, what is zeroed may have to be written out."""
    cdef uint64_t total = 0
    cdef uint32_t i
    if task.request.op == BLK_READ or task.request.op == BLK_WRITE:
        return task.request.length
    if task.request.op == BLK_WRITE_ZEROES:
        for i in range(task.request.n_extents):
            total += task.extents[i].length
    return total


cdef class BlkGate:
    """The gate of one queue, at whose loop it is used; *throttle* is that of its disk. Raises OSError."""

    def __cinit__(self, BlkThrottle throttle not None):
        self.throttle = throttle
        self.generation = throttle.generation
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.timer_fd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    def lift(self):
        """Let everything begin from now on, whatever the limits are."""
        self.open = True

    def drop(self):
        """Nobody wants what waits here any more, and what was counted of it is not."""
        cdef int way
        for way in range(BLK_WAYS):
            if self.tasks[way].first != NULL and not self.moved():
                self.throttle.unpour(way != READS, bytes_of(self.tasks[way].first))
            self.tasks[way].first = NULL
        self.waiting = 0

    def close(self):
        """Close the timer. Again is harmless."""
        if self.timer_fd >= 0:
            c_close(self.timer_fd)
            self.timer_fd = -1

    cdef bint moved(self) noexcept nogil:
        """The limits have changed, so *due* says nothing any more."""
        return self.generation != self.throttle.generation

    cdef bint parks(self, BlkTask *task) noexcept nogil:
        cdef int way = way_of(task)
        cdef int64_t now
        cdef int64_t due = 0
        if self.open or task.request.op == BLK_GET_ID:
            return False
        if self.tasks[way].first == NULL:
            if not self.throttle.active:
                return False
            now = monotonic_ns()
            if self.moved():
                self.reserve(now)
            due = self.throttle.pour(way != READS, bytes_of(task), now)
            if due <= now:
                return False
        self.put(task, way, due)
        return True

    cdef void put(self, BlkTask *task, int way, int64_t due) noexcept nogil:
        if self.tasks[way].first == NULL:
            self.due[way] = due
        tasks_put(&self.tasks[way], task)
        self.waiting += 1
        self.set_timer()

    cdef BlkTask *next(self) noexcept nogil:
        cdef BlkTask *task
        cdef int64_t now
        cdef int way
        if self.waiting == 0:
            return NULL
        now = monotonic_ns()
        if self.moved():
            self.reserve(now)
        for way in range(BLK_WAYS):
            if self.tasks[way].first == NULL or (self.due[way] > now and not self.open):
                continue
            task = tasks_take(&self.tasks[way])
            self.waiting -= 1
            if self.tasks[way].first != NULL and not self.open:
                self.due[way] = self.throttle.pour(way != READS, bytes_of(self.tasks[way].first), now)
            return task
        self.set_timer()
        return NULL

    cdef void reserve(self, int64_t now) noexcept nogil:
        """Count the first ones by the limits that hold now."""
        cdef int way
        self.generation = self.throttle.generation
        for way in range(BLK_WAYS):
            if self.tasks[way].first != NULL:
                self.due[way] = self.throttle.pour(way != READS, bytes_of(self.tasks[way].first), now)

    cdef void set_timer(self) noexcept nogil:
        """For the first one that is due; the kernel is asked only where that is another time than before."""
        cdef itimerspec when
        cdef int64_t first = 0
        cdef int way
        for way in range(BLK_WAYS):
            if self.tasks[way].first != NULL and (first == 0 or self.due[way] < first):
                first = self.due[way]
        if first == 0 or first == self.alarm:
            return
        self.alarm = first
        when.it_interval.tv_sec = when.it_interval.tv_nsec = 0
        when.it_value.tv_sec, when.it_value.tv_nsec = first // 1000000000, first % 1000000000
        timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &when, NULL)
