# The executor of one queue's requests without the GIL: from popped chains to answers, which it gives to *answer*.

from acrn_dm._fastring cimport FrChain, MemoryMap
from acrn_dm.devices.virtio_blk.image._standing cimport BlkStanding, Standing
from acrn_dm.devices.virtio_blk.native._request cimport BlkLimits
from acrn_dm.devices.virtio_blk.native._task cimport BlkTask, BlkTasks
from acrn_dm.devices.virtio_blk.native.engines._engine cimport BlkEngine
from acrn_dm.devices.virtio_blk.native.throttle._gate cimport BlkGate
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# Return the chain named *head*, *written* bytes of which were filled in.
ctypedef void (*BlkAnswer)(void *context, uint16_t head, uint32_t written) noexcept nogil

cdef enum:
    BLK_NO_ROOM = -1          # no byte for the status: the driver's fault
    BLK_NO_TASK = -2          # more chains than the queue is long, or no memory for one
    BLK_SERIAL = 20


cdef class BlkService:
    cdef readonly BlkEngine engine    # None without a medium
    cdef readonly uint32_t in_flight  # requests accepted, not answered and not handed to Python
    cdef readonly uint64_t at_once    # reads and writes that needed no engine
    cdef readonly bint cancelled
    cdef readonly BlkGate gate        # where requests wait for limits; None: nowhere
    cdef MemoryMap memory             # which can't go while requests are in flight
    cdef Standing standing
    cdef BlkStanding *known           # of *standing*
    cdef BlkLimits limits
    cdef uint8_t serial[BLK_SERIAL]
    cdef BlkAnswer answer
    cdef void *context
    cdef BlkTask *tasks
    cdef uint32_t n_tasks
    cdef BlkTasks unused
    cdef BlkTasks filled              # reads that are done, if the file is whole
    cdef BlkTasks flushes             # wait for the next fdatasync
    cdef BlkTasks flushing            # are what the one under way is for
    cdef BlkTasks handed              # for the Python path
    cdef BlkTask sync
    cdef int fd
    cdef uint64_t start               # of the visible part
    cdef uint32_t alignment           # of O_DIRECT in bytes; 0: through the page cache
    cdef bint in_memory               # all of the file is: nothing waits for a medium
    cdef bint reads_cached            # the file system can say whether a read would wait
    cdef bint durable                 # a completed write is on the medium
    cdef bint legacy
    cdef bint deep                    # a batch that is worth a call of the engine's
    cdef bint looked                  # at the file's length, in this batch
    cdef uint32_t skip                # cached reads not tried, since the last ones were not cached
    cdef uint32_t misses

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

    cdef void start_task(self, BlkTask *task) noexcept nogil
    cdef void start_read(self, BlkTask *task) noexcept nogil
    cdef void start_write(self, BlkTask *task) noexcept nogil
    cdef bint needs_bounce(self, const BlkTask *task) noexcept nogil
    cdef void send(self, BlkTask *task) noexcept nogil
    cdef void now(self, BlkTask *task, int flags) noexcept nogil
    cdef void went(self, BlkTask *task, int64_t result) noexcept nogil
    cdef void done(self, BlkTask *task) noexcept nogil
    cdef void failed(self, BlkTask *task, int err) noexcept nogil
    cdef void reply(self, BlkTask *task, int status, uint32_t filled) noexcept nogil
    cdef void hand(self, BlkTask *task, int err) noexcept nogil
    cdef void release(self, BlkTask *task) noexcept nogil
    cdef void start_flush(self) noexcept nogil
    cdef void flushed(self, int64_t result) noexcept nogil
    cdef void forget(self, BlkTask *task) noexcept nogil
    cdef bint reap_void(self) noexcept nogil
