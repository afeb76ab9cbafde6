# The executor of one queue's requests without the GIL: from popped chains to answers.

from acrn_dm._fastring cimport FrChain, FrSegment
from acrn_dm.devices.virtio_blk.image._standing cimport Standing
from acrn_dm.devices.virtio_blk.native._request cimport BlkLimits, BlkRequest
from acrn_dm.devices.virtio_blk.native.engines._engine cimport BlkEngine
from acrn_dm.devices.virtio_blk.native.shortcut._shortcut cimport BlkShortcut
from acrn_dm.devices.virtio_blk.native.tasks._answers cimport BlkAnswers
from acrn_dm.devices.virtio_blk.native.tasks._task cimport BlkTask, BlkTasks
from acrn_dm.devices.virtio_blk.native.throttle._gate cimport BlkGate
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BLK_NO_ROOM = -1          # no byte for the status: the driver's fault
    BLK_NO_TASK = -2          # more chains than the queue is long, or no memory for one
    BLK_SERIAL = 20
    BLK_READY = 64            # reads by the shortcut in one batch
    BLK_SHORT = 64            # segments of a transfer by it

cdef struct BlkReady:         # a read that is done, if the file is whole
    const FrChain *chain
    BlkRequest request


cdef class BlkService(BlkAnswers):
    cdef readonly BlkEngine engine    # None without a medium
    cdef readonly BlkShortcut shortcut
    cdef readonly bint cancelled
    cdef readonly BlkGate gate        # where requests wait for limits; None: nowhere
    cdef Standing standing
    cdef BlkLimits limits
    cdef uint8_t serial[BLK_SERIAL]
    cdef BlkTasks filled              # reads that are done, if the file is whole
    cdef BlkTasks flushes             # wait for the next fdatasync
    cdef BlkTasks flushing            # are what the one under way is for
    cdef BlkTask sync
    cdef int fd
    cdef uint64_t start               # of the visible part
    cdef uint32_t alignment           # of O_DIRECT in bytes; 0: through the page cache
    cdef bint durable                 # a completed write is on the medium
    cdef bint legacy
    cdef bint deep                    # a batch that is worth a call of the engine's
    cdef bint looked                  # at the file's length, in this batch
    cdef int64_t looked_at            # ns
    cdef BlkReady ready[BLK_READY]    # of this batch
    cdef uint32_t n_ready
    cdef FrSegment short_iov[BLK_SHORT]

    # A batch of *n* chains comes.
    cdef void begin(self, uint32_t n) noexcept nogil
    # Take one; 0, or what is wrong. Its answer may be given at once.
    cdef int accept(self, const FrChain *chain) noexcept nogil
    # Begin what has waited long enough; true if anything had.
    cdef bint unpark(self) noexcept nogil
    # The batch has ended: what was accepted begins.
    cdef void settle(self) noexcept nogil
    # Answer what has completed; true if anything had. Then ``settle``.
    cdef bint collect(self) noexcept nogil

    cdef bint by_shortcut(self, const FrChain *chain, const BlkRequest *request) noexcept nogil
    cdef bint may_write(self) noexcept nogil
    cdef void start_task(self, BlkTask *task) noexcept nogil
    cdef void start_read(self, BlkTask *task) noexcept nogil
    cdef void start_write(self, BlkTask *task) noexcept nogil
    cdef void start_ranges(self, BlkTask *task) noexcept nogil
    cdef void next_range(self, BlkTask *task) noexcept nogil
    cdef void ranged(self, BlkTask *task, int64_t result) noexcept nogil
    cdef bint needs_bounce(self, const BlkTask *task) noexcept nogil
    cdef void send(self, BlkTask *task) noexcept nogil
    cdef void went(self, BlkTask *task, int64_t result) noexcept nogil
    cdef void done(self, BlkTask *task) noexcept nogil
    cdef void failed(self, BlkTask *task, int err) noexcept nogil
    cdef void settle_reads(self) noexcept nogil
    cdef bint still_whole(self) noexcept nogil
    cdef void start_flush(self) noexcept nogil
    cdef void flushed(self, int64_t result) noexcept nogil
    cdef bint reap_void(self) noexcept nogil
