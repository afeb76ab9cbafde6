# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Interrupts that wait (virtio 5.1.6.5.10): how many packets they wait for, and how long at most.

What is returned is shown at once, so a driver that looks by itself loses nothing; only the interrupt waits. The first
one that the driver wants begins the count, and when the count or the time is full the driver is asked again.
"""

from acrn_dm.virtio.native._counters cimport monotonic_ns


cdef class Coalescer:
    """The coalescing parameters of one queue, both 0 at first: then interrupts do not wait. One thread at a time uses
    it, with the queue's loop held. *by_loop*: the loop's timers are to be used even where a plane serves the queue,
    because they go by another clock.
    """

    def __cinit__(self, bint by_loop=False):
        self.by_loop = by_loop
        self._fd = -1

    def set(self, uint32_t max_packets, uint32_t max_usecs, QueueCounters counters not None):
        """Let interrupts wait for *max_packets*, *max_usecs* at most; with a 0 they do not wait (5.1.6.5.10.1)."""
        if not self.holding:
            self.skip(counters.counts.returned)
        self.max_packets, self.max_usecs = max_packets, max_usecs
        self.active = max_packets > 0 and max_usecs > 0
        self.deadline = self._since + <int64_t>max_usecs * NS_PER_US

    def full(self, QueueCounters counters not None):
        """Whether what is held back is due by the parameters as they are now."""
        cdef bint late = self._fd >= 0 and not self.by_loop and monotonic_ns() >= self.deadline
        return not self.active or late or counters.counts.returned - self._base >= self.max_packets

    def shown(self, QueueCounters counters not None, bint held):
        """What was returned is shown; *held*: the driver has an interrupt to get for it (``Ring.hold``). Returns
        whether to send it now.
        """
        cdef int64_t now
        if counters.n_pending == 0:
            return False
        if not held:
            counters.showed(False)
            self.skip(counters.counts.returned)
            return False
        now = monotonic_ns()
        counters.held(now)
        return self.add(counters.counts.returned, now)

    def settled(self, QueueCounters counters not None, bint wanted):
        """The interrupt that was held back is sent, or not *wanted* any more."""
        self.over(counters.counts.returned)
        counters.let_go(wanted)

    def took_several(self, uint32_t n):
        """A packet that was returned has taken *n* chains, which count as one packet."""
        if self.active:
            self.merged(n)

    def rearm(self):
        """Have a plane told at the new time; False where none serves the queue, or not by this clock."""
        if self._fd < 0 or self.by_loop:
            return False
        self._poll.at(self._fd, self.deadline)
        return True

    cdef void serve(self, EventPoll poll, int fd):
        self._poll, self._fd = poll, fd
