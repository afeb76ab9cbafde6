# A request on its way through an engine: its chain, what is left to move, the piece that is under way.

from acrn_dm._fastring cimport FrChain, FrSegment
from acrn_dm.devices.virtio_blk.native._request cimport BlkExtent, BlkRequest
from acrn_dm.devices.virtio_blk.native.engines._engine cimport BlkIo
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BLK_FEW = 12              # segments of a request that needs no allocation of its own
    BLK_PIECE = 4 << 20       # bytes moved by one call, as pieces.PIECE_BYTES
    BLK_IOV_MAX = 1024
    BLK_BOUNCE = 64 << 10     # bytes of a buffer of ours, where the kernel does not take the guest's
    BLK_PAGE = 4096           # what O_DIRECT asks for at most

cdef struct BlkTask:
    BlkIo io                  # first: what the engine hands back is the task
    BlkTask *next             # in the list that the task is in
    FrChain chain             # with segments of its own
    BlkRequest request
    BlkExtent *extents        # of a discard or write-zeroes request, else NULL
    FrSegment *iov            # n_iov stretches left to move; behind the chain's segments
    FrSegment *memory         # allocated where *few* has no room, else NULL
    FrSegment few[2 * BLK_FEW]
    FrSegment bounce          # the buffer in between, with the length of the piece; its address is NULL without
    uint64_t offset           # in the file, of what is left
    uint64_t before           # of a flush: changes when it began
    uint32_t n_iov
    uint32_t left             # bytes, or ranges
    size_t trimmed            # bytes that the last vector of the piece was cut by
    int err                   # the host's failure, 0: not tried here
    uint8_t attempts
    bint volatile_change      # begun, not yet ended

cdef struct BlkTasks:         # in order of arrival
    BlkTask *first
    BlkTask *last

cdef inline void tasks_put(BlkTasks *tasks, BlkTask *task) noexcept nogil:
    task.next = NULL
    if tasks.first == NULL:
        tasks.first = task
    else:
        tasks.last.next = task
    tasks.last = task

# At the front: what was used last is used next, while it is in the cache.
cdef inline void tasks_put_back(BlkTasks *tasks, BlkTask *task) noexcept nogil:
    task.next = tasks.first
    if tasks.first == NULL:
        tasks.last = task
    tasks.first = task

cdef inline BlkTask *tasks_take(BlkTasks *tasks) noexcept nogil:
    cdef BlkTask *task = tasks.first
    if task != NULL:
        tasks.first = task.next
    return task

# Whether what is left of a read or write begins and ends at a multiple of *alignment*, if that is not 0.
cdef inline bint task_aligned(const BlkTask *task, uint32_t alignment) noexcept nogil:
    return alignment == 0 or (task.offset % alignment == 0 and task.left % alignment == 0)

# Copy *chain* with its segments, *request* and its *extents*; false without memory for them.
cdef bint task_set(
    BlkTask *task, const FrChain *chain, const BlkRequest *request, const BlkExtent *extents
) noexcept nogil
# Let *iov* be the data of a read or write, which begins at *start* of the file.
cdef void task_data(BlkTask *task, uint64_t start) noexcept nogil
# Make *io* the next piece.
cdef void task_piece(BlkTask *task) noexcept nogil
# *moved* bytes of the piece were moved.
cdef void task_moved(BlkTask *task, uint32_t moved) noexcept nogil
# Let the data go through an aligned buffer of ours from now on; false without memory for one.
cdef bint task_bounce(BlkTask *task) noexcept nogil
# Make *io* the next range that has a length, counted from *start* of the file; false if there is none left.
cdef bint task_range(BlkTask *task, uint64_t start) noexcept nogil
# Free what the request has allocated.
cdef void task_clear(BlkTask *task) noexcept nogil
