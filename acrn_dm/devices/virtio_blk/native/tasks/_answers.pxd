# The requests that a queue has in flight, and their answers, which go to *answer*.

from acrn_dm._fastring cimport FrChain, MemoryMap
from acrn_dm.devices.virtio_blk.image._standing cimport BlkStanding
from acrn_dm.devices.virtio_blk.native._request cimport BlkExtent, BlkRequest
from acrn_dm.devices.virtio_blk.native.tasks._task cimport BlkTask, BlkTasks
from libc.stdint cimport uint16_t, uint32_t

# Return the chain named *head*, *written* bytes of which were filled in.
ctypedef void (*BlkAnswer)(void *context, uint16_t head, uint32_t written) noexcept nogil


cdef class BlkAnswers:
    cdef readonly uint32_t in_flight  # requests accepted, not answered and not handed to Python
    cdef MemoryMap memory             # which can't go while requests are in flight
    cdef BlkStanding *known           # of the image; NULL without one
    cdef BlkAnswer answer
    cdef void *context
    cdef BlkTask *tasks
    cdef uint32_t n_tasks
    cdef BlkTasks unused
    cdef BlkTasks handed              # for the Python path

    # A task for *chain*; NULL if there are more than the queue is long, or no memory.
    cdef BlkTask *accepted(
        self, const FrChain *chain, const BlkRequest *request, const BlkExtent *extents
    ) noexcept nogil
    # Answer *chain*, which has no task.
    cdef void respond(self, const FrChain *chain, int status, uint32_t filled) noexcept nogil
    # Answer *task*, which ends.
    cdef void reply(self, BlkTask *task, int status, uint32_t filled) noexcept nogil
    # Let the Python path have it: to execute it, or to say what follows from *err*.
    cdef void hand(self, BlkTask *task, int err) noexcept nogil
    cdef void forget(self, BlkTask *task) noexcept nogil
    cdef void free_tasks(self)
