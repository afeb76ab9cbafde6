# The requests of one queue that wait for a limit, before they begin: reads, writes, and what moves no data, each in
# order of arrival.

from acrn_dm.devices.virtio_blk.native.tasks._task cimport BlkTask, BlkTasks
from acrn_dm.devices.virtio_blk.native.throttle._throttle cimport BlkThrottle
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    BLK_WAYS = 3


cdef class BlkGate:
    cdef readonly BlkThrottle throttle
    cdef readonly uint32_t waiting        # requests
    cdef readonly int timer_fd            # a timerfd, readable when one may begin; -1 when closed
    cdef BlkTasks tasks[BLK_WAYS]         # reads, writes, others
    cdef int64_t due[BLK_WAYS]            # when the first of each may begin, which has been counted for that
    cdef int64_t alarm                    # when the timer rings; 0: not set
    cdef uint64_t generation              # of the limits that *due* follows from
    cdef bint open                        # everything may begin
    # Take *task* if it has to wait; false: it may begin now.
    cdef bint parks(self, BlkTask *task) noexcept nogil
    # One that has waited long enough, or NULL; then the timer is set for the next.
    cdef BlkTask *next(self) noexcept nogil
    cdef void put(self, BlkTask *task, int way, int64_t due) noexcept nogil
    cdef bint moved(self) noexcept nogil
    cdef void reserve(self, int64_t now) noexcept nogil
    cdef void set_timer(self) noexcept nogil
