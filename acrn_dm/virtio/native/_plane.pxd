# A virtqueue that is served in C: the class that data planes derive from, ours and those of plugins.
#
# A plane overrides ``handle``, and ``room`` if it may have none. Both run on the loop's thread, without the GIL, from
# ``start`` to ``stop`` and never at the same time; they must come back soon (``base/events/_poll.pxd``). Who can answer
# at once calls ``complete`` in ``handle``. Who needs longer keeps FrChain.head, and copies the segments, which the next
# batch reuses; later, on the same loop or under its run lock, he calls ``complete`` for each, then ``flush`` once.

from acrn_dm._fastring cimport FrBatch, FrVirtqueue, NativeRing
from acrn_dm.base.events._poll cimport EventPoll
from acrn_dm.virtio.native._coalescer cimport Coalescer
from acrn_dm.virtio.native._counters cimport QueueCounters
from libc.stdint cimport uint16_t, uint32_t

cdef enum:
    PLANE_BATCH = 256         # chains of a batch, at most
    PLANE_ROUNDS = 4          # batches of a turn; then the others of the loop have theirs


cdef class Plane:
    cdef FrVirtqueue *vq      # NULL while no driver uses the queue
    cdef NativeRing ring
    cdef EventPoll poll
    cdef FrBatch batch        # its arrays are the ring's
    cdef readonly QueueCounters counters
    cdef Coalescer coalescer
    cdef readonly uint32_t generation     # counts drivers: what is kept of an earlier one is late
    cdef int kick_fd
    cdef int call_fd          # an eventfd of ours; -1: Python interrupts
    cdef bint running         # between start and stop: chains are taken
    cdef bint timed           # Python looks by a timer, kicks are not wanted
    cdef bint polling         # the loop looks all the time, kicks are not wanted
    cdef bint quiet           # the driver was told that no kicks are wanted
    cdef uint32_t linger_misses           # in a row, as 2^n - 1
    cdef uint32_t linger_skip             # times that lingering does not pay
    cdef bint call_wanted     # Python is to interrupt
    cdef int status           # why the queue is dead: a negative FrStatus, or the device's own number below -1000

    # To be overridden. Returns how many of the batch were taken, in order; the rest is given back and stays in the ring
    # until ``wake``. A negative number (see ``status``) is the end of the queue: ``failure`` makes an exception of it.
    cdef int handle(self, FrBatch *batch) noexcept nogil
    # To be overridden: how many chains may be taken now; 0 leaves them in the ring until ``wake``.
    cdef uint32_t room(self) noexcept nogil
    # A turn: take batches and handle them; whether there was any. To be overridden where chains are taken only when the
    # host has something for them (receive queues): with bounded work, and ``vq_enable_kicks`` before it waits for one.
    cdef bint serve(self) noexcept nogil

    # Return the chain *head* with *written* bytes, no more than its in_bytes. Shown at ``flush``. Nothing happens when
    # the driver is gone (``detach``).
    cdef void complete(self, uint16_t head, uint32_t written) noexcept nogil
    # The same for a chain that was kept when ``generation`` had this value; an earlier driver's is dropped and counted.
    cdef void complete_of(self, uint32_t generation, uint16_t head, uint32_t written) noexcept nogil
    # Show what was returned, and interrupt the driver if it wants that; later where interrupts wait for more
    # (``coalescer``, which a plane tells of packets that took several chains).
    cdef void flush(self) noexcept nogil
    # ``flush`` for what comes long after its batch: a driver that polls may have its next chains in the ring at once,
    # and they are served, too. On the loop's thread; returns whether there were any.
    cdef bint show_late(self) noexcept nogil
    # There is room, or news: look at the ring again. On the loop's thread, or under its run lock.
    cdef void wake(self) noexcept nogil
    # The queue is dead, until the driver resets; Python says so to the device.
    cdef void die(self, int status) noexcept nogil

    cdef bint _turn(self) noexcept nogil
    cdef void _quieten(self) noexcept nogil
    cdef int _take(self, uint32_t room) noexcept nogil
    cdef bint _lingers(self) noexcept nogil
    cdef bint _linger(self) noexcept nogil
    cdef bint _sleep(self) noexcept nogil
    cdef void _hold(self) noexcept nogil
    cdef void _settle(self) noexcept nogil
    cdef void _interrupt(self) noexcept nogil
