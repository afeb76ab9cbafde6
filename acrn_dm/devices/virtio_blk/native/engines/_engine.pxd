# What executes a disk's transfers without the GIL. One engine serves one queue and is used on its loop's thread only,
# or where that can't run (``IoLoop.held``, after ``cancel``).
#
# Public: a driver's engine (``BlockDriver.engine``) derives from ``BlkEngine`` and overrides ``submit``, ``reap`` and
# ``arm`` at least; what holds requests back overrides ``commit`` and ``cancel``, too. The caller checks ranges, flags
# and the guest's buffers, goes on after a short transfer, and tries EINTR and EAGAIN again; all other errors are
# answers. It submits one BLK_IO_SYNC at a time. Compiled against one version of acrn-dm.

from acrn_dm._fastring cimport FrSegment
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum BlkKind:
    BLK_IO_READ = 0
    BLK_IO_WRITE = 1
    BLK_IO_SYNC = 2           # fdatasync
    BLK_IO_FALLOCATE = 3      # fallocate: only of engines that say ``allocates``

cdef struct BlkIo:            # one system call; it and what it points to are the engine's from submit to reap
    BlkIo *next
    FrSegment *iov            # at most IOV_MAX of them
    uint64_t offset           # in the file
    int64_t result            # bytes moved, or a negative errno
    uint32_t n_iov
    uint8_t kind
    bint durable              # a write that returns when it is on the medium (RWF_DSYNC)
    uint64_t length           # of a range, in bytes
    int mode                  # of fallocate


cdef class BlkEngine:
    cdef readonly int event_fd       # becomes readable when something completes after ``arm``; -1 when closed
    cdef readonly uint32_t in_flight  # submitted and not reaped
    cdef readonly bint cancelled
    cdef readonly bint allocates      # takes BLK_IO_FALLOCATE; else ranges are Python's
    # Take *io*; it begins with ``commit`` at the latest, so that a batch costs one call.
    cdef void submit(self, BlkIo *io) noexcept nogil
    cdef void commit(self) noexcept nogil
    # What has completed, as a list; NULL when nothing has. Never waits.
    cdef BlkIo *reap(self) noexcept nogil
    # Ask for *event_fd* at the next completion; true when some came meanwhile: reap again.
    cdef bint arm(self) noexcept nogil
    # Give up what can be given up; what has not begun completes as ECANCELED. Does not wait.
    cdef void cancel(self) noexcept nogil

# Wait up to *seconds* for the next completion.
cdef void engine_wait(BlkEngine engine, double seconds) noexcept nogil
