# Interrupts of one queue that wait for more packets, or for their time: the parameters and what was counted since.

from acrn_dm.base.events._poll cimport EventPoll
from acrn_dm.virtio.native._counters cimport QueueCounters
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    NS_PER_US = 1000


cdef class Coalescer:
    cdef readonly uint32_t max_packets
    cdef readonly uint32_t max_usecs
    cdef readonly bint active             # both are set: interrupts wait
    cdef readonly bint holding            # one does
    cdef readonly bint by_loop            # it is the loop's Python timer that ends the wait, not a plane
    cdef int64_t deadline                 # when it is over, in ns of CLOCK_MONOTONIC
    cdef int64_t _since                   # when it began
    cdef uint64_t _base                   # chains returned when counting began; more where a packet took several
    cdef EventPoll _poll                  # of the plane that serves the queue
    cdef int _fd                          # which the plane is called by

    # The driver wants no interrupt for what was shown, of *returned* chains in all: counting begins with the next.
    cdef inline void skip(self, uint64_t returned) noexcept nogil:
        self._base = returned

    # It wants one: true if that was the last of *max_packets*.
    cdef inline bint add(self, uint64_t returned, int64_t now) noexcept nogil:
        if not self.holding:
            self.holding = True
            self._since = now
            self.deadline = now + <int64_t>self.max_usecs * NS_PER_US
        return returned - self._base >= self.max_packets

    # The interrupt is not held back any more.
    cdef inline void over(self, uint64_t returned) noexcept nogil:
        self.holding = False
        self._base = returned

    # A packet has taken *n* chains, which count as one.
    cdef inline void merged(self, uint32_t n) noexcept nogil:
        self._base += n - 1  # no more than is returned besides

    cdef void serve(self, EventPoll poll, int fd)
