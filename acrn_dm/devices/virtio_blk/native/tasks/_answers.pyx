# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Requests in flight, as many as the queue is long, and their answers: to the driver, or to the Python path."""

from acrn_dm._fastring cimport FrChain, FrVirtqueue, RingBase, new_chain, vq_push
from acrn_dm.devices.virtio_blk.image._standing cimport blk_changes
from acrn_dm.devices.virtio_blk.native._request cimport BlkExtent, BlkRequest, blk_status_byte, request_from
from acrn_dm.devices.virtio_blk.native.tasks._task cimport (
    BlkTask, task_clear, task_set, tasks_put, tasks_put_back, tasks_take,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint16_t, uint32_t


cdef void push(void *context, uint16_t head, uint32_t written) noexcept nogil:
    vq_push(<FrVirtqueue *>context, head, written)


cdef class BlkAnswers:
    """The requests of *ring*, whose owner publishes the answers."""

    def __cinit__(self, RingBase ring not None, *args, **kwargs):
        cdef uint32_t i
        self.answer, self.context = push, ring.virtqueue()
        self.memory = ring.memory
        self.n_tasks = ring.size
        self.tasks = <BlkTask *>PyMem_Calloc(self.n_tasks, sizeof(BlkTask))
        if self.tasks == NULL:
            raise MemoryError()
        for i in range(self.n_tasks):
            tasks_put(&self.unused, &self.tasks[i])
        self.memory.users += 1

    def __dealloc__(self):
        if self.memory is not None and self.tasks != NULL:
            self.memory.users -= 1
        PyMem_Free(self.tasks)

    cdef BlkTask *accepted(
        self, const FrChain *chain, const BlkRequest *request, const BlkExtent *extents
    ) noexcept nogil:
        cdef BlkTask *task = tasks_take(&self.unused)
        if task == NULL:
            return NULL
        if not task_set(task, chain, request, extents):
            tasks_put_back(&self.unused, task)
            return NULL
        self.in_flight += 1
        return task

    cdef void respond(self, const FrChain *chain, int status, uint32_t filled) noexcept nogil:
        """Answer with *filled* bytes of data in place. The used length is what is filled without a gap (2.7.8.2)."""
        cdef uint32_t room = chain.in_bytes - 1
        blk_status_byte(chain)[0] = <unsigned char>status
        self.answer(self.context, chain.head, room + 1 if filled == room else filled)

    cdef void reply(self, BlkTask *task, int status, uint32_t filled) noexcept nogil:
        self.respond(&task.chain, status, filled)
        self.in_flight -= 1
        self.forget(task)

    cdef void hand(self, BlkTask *task, int err) noexcept nogil:
        if task.volatile_change:
            task.volatile_change = False
            blk_changes(self.known)
        task.err = err
        self.in_flight -= 1
        tasks_put(&self.handed, task)

    cdef void forget(self, BlkTask *task) noexcept nogil:
        task_clear(task)
        tasks_put_back(&self.unused, task)

    def take_handed(self, RingBase ring not None):
        """What the Python path has to do: (chain of *ring*, request, errno of the host's failure or 0) of each."""
        cdef BlkTask *task = tasks_take(&self.handed)
        cdef list taken = []
        while task != NULL:
            taken.append((new_chain(ring, &task.chain), request_from(&task.request, task.extents), task.err))
            self.forget(task)
            task = tasks_take(&self.handed)
        return taken

    cdef void free_tasks(self):
        """Nothing is in flight, nor will be. Idempotent."""
        cdef uint32_t i
        if self.tasks == NULL:
            return
        for i in range(self.n_tasks):
            task_clear(&self.tasks[i])
        PyMem_Free(self.tasks)
        self.tasks = NULL
        self.memory.users -= 1
