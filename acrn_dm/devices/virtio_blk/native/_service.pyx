# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The executor of one queue's requests without the GIL.

It executes what is common: reads and writes of aligned requests, flushes, the serial number. What is rare (ranges, what
has to be bounced, everything that the host failed) it hands to the Python path, in which policies and words stand; what
it hands over it has parsed, so that no byte of the guest's is read twice.

A batch costs one look at the file's length, before its writes and after its reads (``image.trust``), and one call of
the engine. Flushes that wait while one is under way share the next one.
"""

from acrn_dm._fastring cimport Chain, FrChain, FrVirtqueue, RingBase, new_chain, vq_push
from acrn_dm.devices.virtio_blk.image._standing cimport (
    blk_changes, blk_durable_failed, blk_synced, blk_try_sync, blk_whole,
)
from acrn_dm.devices.virtio_blk.native._request cimport (
    BLK_FLUSH, BLK_GET_ID, BLK_READ, BLK_S_IOERR, BLK_S_NO_ROOM, BLK_S_OK, BLK_WRITE, blk_scatter, blk_status_byte,
    limits_from, request_from,
)
from acrn_dm.devices.virtio_blk.native._task cimport (
    BLK_IOV_MAX, BlkTask, task_clear, task_data, task_moved, task_now, task_parse, task_piece, task_set, tasks_put,
    tasks_take,
)
from acrn_dm.devices.virtio_blk.native.throttle._gate cimport BlkGate
from acrn_dm.devices.virtio_blk.native.engines._engine cimport (
    BLK_IO_READ, BLK_IO_SYNC, BLK_IO_WRITE, BlkEngine, BlkIo, engine_wait,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN, EINTR, EINVAL
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memcpy

from time import monotonic

from acrn_dm.base.errors import GuestError

cdef extern from "<sys/uio.h>" nogil:
    enum:
        RWF_DSYNC
        RWF_NOWAIT

cdef enum:
    AT_ONCE = 128 << 10       # bytes; larger transfers would keep the loop busy copying
    DEEP = 4                  # chains of a batch for which one call of the engine's is cheaper than a call for each
    MAX_SKIP = 63
    ATTEMPTS = 8              # of a call that the kernel wants made again

STUCK = []  # services whose requests the host has not given back: what those use lives as long as the process


cdef void push(void *context, uint16_t head, uint32_t written) noexcept nogil:
    vq_push(<FrVirtqueue *>context, head, written)


cdef class BlkService:
    """The executor of the chains of *ring*, whose owner publishes the answers. *serial* is what get-id answers."""

    def __cinit__(self, RingBase ring not None, bytes serial not None, *, bint legacy):
        cdef uint32_t size = ring.size
        cdef uint32_t i
        self.answer, self.context = push, ring.virtqueue()
        self.memory = ring.memory
        self.legacy = legacy
        self.n_tasks = size
        self.tasks = <BlkTask *>PyMem_Calloc(size, sizeof(BlkTask))
        if self.tasks == NULL:
            raise MemoryError()
        for i in range(size):
            tasks_put(&self.unused, &self.tasks[i])
        cdef bytes text = serial[:BLK_SERIAL].ljust(BLK_SERIAL, b"\0")
        memcpy(self.serial, <const char *>text, BLK_SERIAL)
        self.memory.users += 1

    def __dealloc__(self):
        if self.memory is not None and self.tasks != NULL:
            self.memory.users -= 1
        PyMem_Free(self.tasks)

    def adopt(self, BlkEngine engine, image, *, uint32_t alignment, bint in_memory):
        """Execute on *image* by *engine*. *alignment* is that of O_DIRECT, 0 without. Not while requests run."""
        self.engine = engine
        self.standing = image.trust.standing
        self.known = &self.standing.state
        self.fd, self.start = image.fd, image.start
        self.alignment, self.in_memory = alignment, in_memory
        self.reads_cached = alignment == 0 and self.fd >= 0  # an engine need have no file

    def limit(self, limits, *, bint durable):
        """What requests are held to from now on, and whether a completed write is on the medium. Not while they run."""
        limits_from(&self.limits, limits)
        self.durable = durable

    def restrain(self, BlkGate gate):
        """Have requests wait at *gate* before they begin. Not while they run."""
        self.gate = gate

    def promise(self, bint durable):
        """Whether a write that completes is on the medium, from now on. Any thread."""
        self.durable = durable

    cdef void begin(self, uint32_t n) noexcept nogil:
        self.deep = n > DEEP

    cdef int accept(self, const FrChain *chain) noexcept nogil:
        cdef BlkTask *task = tasks_take(&self.unused)
        cdef int status
        if task == NULL:
            return BLK_NO_TASK
        if not task_set(task, chain):
            tasks_put(&self.unused, task)
            return BLK_NO_TASK
        status = task_parse(task, &self.limits)
        if status == BLK_S_NO_ROOM:
            self.forget(task)
            return BLK_NO_ROOM
        self.in_flight += 1
        if status != BLK_S_OK:
            self.reply(task, status, 0)
        elif self.engine is None:
            self.reply(task, BLK_S_IOERR, 0)
        elif self.gate is None or not self.gate.parks(task):
            self.start_task(task)
        return 0

    cdef bint unpark(self) noexcept nogil:
        cdef BlkTask *task
        cdef bint some = False
        while self.gate is not None:
            task = self.gate.next()
            if task == NULL:
                break
            some = True
            self.start_task(task)
        if some:
            self.settle()
        return some

    cdef void start_task(self, BlkTask *task) noexcept nogil:
        cdef int op = task.request.op
        if op == BLK_GET_ID:
            self.reply(task, BLK_S_OK, blk_scatter(
                task.chain.segments + task.chain.n_out, task.chain.n_in, self.serial,
                min(<uint32_t>BLK_SERIAL, task.chain.in_bytes - 1),
            ))
        elif self.known.cut or (self.known.lost and (op == BLK_FLUSH or self.durable)):
            self.hand(task, 0)  # fails, with the words for it
        elif op == BLK_FLUSH:
            tasks_put(&self.flushes, task)
        elif op == BLK_READ or op == BLK_WRITE:
            task_data(task, self.start)
            if task.left == 0:
                self.reply(task, BLK_S_OK, 0)
            elif op == BLK_READ:
                self.start_read(task)
            else:
                self.start_write(task)
        else:
            self.hand(task, 0)

    cdef bint needs_bounce(self, const BlkTask *task) noexcept nogil:
        """Whether the request needs the bounce buffers of the Python path."""
        return self.legacy or (self.alignment != 0 and (
            task.offset % self.alignment != 0 or task.left % self.alignment != 0
        ))

    cdef void start_read(self, BlkTask *task) noexcept nogil:
        task.io.kind, task.io.durable = BLK_IO_READ, False
        if task.left <= AT_ONCE and task.n_iov <= BLK_IOV_MAX:
            if self.in_memory:
                self.now(task, 0)
                return
            if self.reads_cached and not self.deep:
                if self.skip == 0:
                    self.now(task, RWF_NOWAIT)
                    return
                self.skip -= 1
        if self.needs_bounce(task):
            self.hand(task, 0)
        else:
            self.send(task)

    cdef void start_write(self, BlkTask *task) noexcept nogil:
        if not self.looked:
            self.looked = True
            blk_whole(self.known)
        cdef bint here = self.in_memory and task.left <= AT_ONCE and task.n_iov <= BLK_IOV_MAX
        cdef bint waits = self.durable and self.known.changes != self.known.stable
        if self.known.cut or waits or (not here and self.needs_bounce(task)):
            self.hand(task, 0)  # with earlier writes waiting, a flush has to follow: one that means those, too
            return
        task.io.kind, task.io.durable = BLK_IO_WRITE, self.durable
        if not self.durable:
            task.volatile_change = True
            blk_changes(self.known)
        if here:
            self.now(task, RWF_DSYNC if self.durable else 0)
        else:
            self.send(task)

    cdef void send(self, BlkTask *task) noexcept nogil:
        task_piece(task)
        self.engine.submit(&task.io)

    cdef void now(self, BlkTask *task, int flags) noexcept nogil:
        """On this thread, as what is in memory needs no waiting."""
        cdef int64_t result = task_now(task, self.fd, flags)
        if result < 0 and flags & RWF_NOWAIT:
            if result != -EAGAIN:
                self.reads_cached = False  # there are no such reads; a real error shows in the engine
            self.misses = min(2 * self.misses + 1, <uint32_t>MAX_SKIP)
            self.skip = self.misses
            if self.needs_bounce(task):
                self.hand(task, 0)
            else:
                self.engine.submit(&task.io)
            return
        self.misses = 0
        self.at_once += 1
        self.went(task, result)

    cdef void went(self, BlkTask *task, int64_t result) noexcept nogil:
        """A piece has come back."""
        if result > 0:
            task_moved(task, <uint32_t>result)
            if task.left == 0:
                self.done(task)
            elif self.needs_bounce(task):
                self.hand(task, 0)
            else:
                self.send(task)
            return
        task_moved(task, 0)
        if (result == -EINTR or result == -EAGAIN) and task.attempts < ATTEMPTS:
            task.attempts += 1
            self.send(task)
        elif result == 0 or (result == -EINVAL and self.alignment != 0):
            self.failed(task, 0)  # the file has ended, or O_DIRECT does not like the guest's buffers
        else:
            self.failed(task, <int>-result)

    cdef void done(self, BlkTask *task) noexcept nogil:
        if task.io.kind == BLK_IO_READ:
            tasks_put(&self.filled, task)
            return
        if task.volatile_change:
            task.volatile_change = False
            blk_changes(self.known)
        self.reply(task, BLK_S_OK, 0)

    cdef void failed(self, BlkTask *task, int err) noexcept nogil:
        if task.io.durable and err != 0:
            blk_durable_failed(self.known, err)
        self.hand(task, err)

    cdef void reply(self, BlkTask *task, int status, uint32_t filled) noexcept nogil:
        """Answer with *filled* bytes of data in place. The used length is what is filled without a gap (2.7.8.2)."""
        cdef uint32_t room = task.chain.in_bytes - 1
        blk_status_byte(&task.chain)[0] = <unsigned char>status
        self.answer(self.context, task.chain.head, room + 1 if filled == room else filled)
        self.release(task)

    cdef void hand(self, BlkTask *task, int err) noexcept nogil:
        """Let the Python path have it: to execute it, or to say what follows from *err*."""
        if task.volatile_change:
            task.volatile_change = False
            blk_changes(self.known)
        task.err = err
        self.in_flight -= 1
        tasks_put(&self.handed, task)

    cdef void release(self, BlkTask *task) noexcept nogil:
        self.in_flight -= 1
        self.forget(task)

    cdef void forget(self, BlkTask *task) noexcept nogil:
        task_clear(task)
        tasks_put(&self.unused, task)

    cdef void settle(self) noexcept nogil:
        cdef BlkTask *task
        cdef bint whole
        self.looked = False
        if self.engine is None:
            return
        if self.flushes.first != NULL and self.flushing.first == NULL:
            self.start_flush()
        self.engine.commit()
        if self.filled.first != NULL:
            whole = blk_whole(self.known)
            task = tasks_take(&self.filled)
            while task != NULL:
                if whole:
                    self.reply(task, BLK_S_OK, task.request.length)
                else:
                    self.hand(task, 0)
                task = tasks_take(&self.filled)

    cdef bint collect(self) noexcept nogil:
        cdef BlkIo *io
        cdef BlkIo *following
        cdef bint some = False
        if self.engine is None:
            return False
        while True:
            io = self.engine.reap()
            if io == NULL:
                return some
            some = True
            while io != NULL:
                following = io.next
                if io.kind == BLK_IO_SYNC:
                    self.flushed(io.result)
                else:
                    self.went(<BlkTask *>io, io.result)
                io = following

    cdef void start_flush(self) noexcept nogil:
        cdef BlkTask *task
        if blk_try_sync(self.known, &self.sync.before):
            self.flushing = self.flushes
            self.flushes.first = NULL
            self.sync.io.kind, self.sync.attempts = BLK_IO_SYNC, 0
            self.engine.submit(&self.sync.io)
            return
        # Another queue's is under way, and this one has to come after it: a thread waits for that.
        task = tasks_take(&self.flushes)
        while task != NULL:
            self.hand(task, 0)
            task = tasks_take(&self.flushes)

    cdef void flushed(self, int64_t result) noexcept nogil:
        cdef BlkTask *task
        if (result == -EINTR or result == -EAGAIN) and self.sync.attempts < ATTEMPTS:
            self.sync.attempts += 1
            self.engine.submit(&self.sync.io)
            return
        blk_synced(self.known, self.sync.before, <int>-result)
        if result == 0:
            blk_whole(self.known)
        task = tasks_take(&self.flushing)
        while task != NULL:
            if result == 0 and not self.known.cut:
                self.reply(task, BLK_S_OK, 0)
            else:
                self.hand(task, <int>-result)
            task = tasks_take(&self.flushing)

    cdef bint reap_void(self) noexcept nogil:
        """Take what was given up and has come back; true if the host still has some of it."""
        cdef BlkIo *io
        cdef BlkTask *task
        if self.engine is None:
            return False
        self.engine.commit()
        io = self.engine.reap()
        while io != NULL:
            while io != NULL:
                task = <BlkTask *>io
                if io.kind == BLK_IO_SYNC:
                    blk_synced(self.known, self.sync.before, <int>-io.result if io.result < 0 else 0)
                elif task.volatile_change:
                    task.volatile_change = False
                    blk_changes(self.known)
                io = io.next
            io = self.engine.reap()
        return self.engine.in_flight != 0

    def take(self, RingBase ring not None, int limit=64):
        """Take up to *limit* chains of *ring* and begin them; returns how many. Raises GuestError."""
        cdef Chain chain
        cdef list chains = ring.pop_batch(limit)
        self.begin(<uint32_t>len(chains))
        for chain in chains:
            if self.accept(&chain.chain) == BLK_NO_ROOM:
                raise GuestError("block request without room for the status byte")
        self.settle()
        return len(chains)

    def drain(self, double seconds):
        """Wait until everything accepted is answered or handed over, limits or not; false if that takes longer. Nobody
        else may use the object meanwhile.
        """
        cdef double deadline = monotonic() + seconds
        cdef double left = seconds
        if self.gate is not None:
            self.gate.lift()
            self.unpark()
        while self.in_flight and left > 0:
            with nogil:
                while self.collect():
                    self.settle()
                if self.in_flight:
                    engine_wait(self.engine, left)
            left = deadline - monotonic()
        return self.in_flight == 0

    def take_handed(self, RingBase ring not None):
        """What the Python path has to do: (chain of *ring*, request, errno of the host's failure or 0) of each."""
        cdef BlkTask *task = tasks_take(&self.handed)
        cdef list taken = []
        while task != NULL:
            taken.append((new_chain(ring, &task.chain), request_from(&task.request, task.extents), task.err))
            self.forget(task)
            task = tasks_take(&self.handed)
        return taken

    def cancel(self):
        """Nobody wants the answers any more; does not wait. Nothing else of this object runs then or later."""
        if self.cancelled:
            return
        self.cancelled = True
        if self.gate is not None:
            self.gate.drop()
        if self.engine is not None:
            with nogil:
                self.engine.cancel()
                self.reap_void()

    @property
    def busy(self):
        """Whether the host still has requests that were given up."""
        cdef bint some
        if self.engine is None or not self.cancelled:
            return False
        with nogil:
            some = self.reap_void()
        return bool(some)

    def close(self):
        """Let go of everything; what the host has not given back keeps it all."""
        cdef uint32_t i
        cdef bint some = False
        if self.tasks == NULL:
            return
        if self.engine is not None:
            with nogil:
                some = self.reap_void()
            if some:
                STUCK.append(self)
                return
            self.engine.close()
        if self.gate is not None:
            self.gate.close()
        for i in range(self.n_tasks):
            task_clear(&self.tasks[i])
        self.engine = None
        PyMem_Free(self.tasks)
        self.tasks = NULL
        self.memory.users -= 1
