# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The executor of one queue's requests without the GIL.

It executes what is common: reads and writes of aligned requests, flushes, discards and zeroes by fallocate, the serial
number. What is rare (what has to be bounced or needs an ioctl, everything that the host failed) it hands to the Python
path, in which policies and words stand; what it hands over it has parsed, so that no byte of the guest's is read twice.

A batch costs one look at the file's length, before its writes and after its reads (``image.trust``), and one call of
the engine. Flushes that wait while one is under way share the next one.
"""

from acrn_dm._fastring cimport Chain, FrChain, RingBase
from acrn_dm.devices.virtio_blk.image._standing cimport (
    blk_changes, blk_durable_failed, blk_punched, blk_synced, blk_try_sync, blk_whole,
)
from acrn_dm.devices.virtio_blk.native._request cimport (
    BLK_DISCARD, BLK_FLUSH, BLK_GET_ID, BLK_HEADER, BLK_MAX_EXTENTS, BLK_READ, BLK_S_IOERR, BLK_S_NO_ROOM, BLK_S_OK,
    BLK_WRITE, BLK_WRITE_ZEROES, BlkExtent, BlkRequest, blk_parse, blk_window, limits_from,
)
from acrn_dm.devices.virtio_blk.native.engines._engine cimport (
    BLK_IO_FALLOCATE, BLK_IO_READ, BLK_IO_SYNC, BLK_IO_WRITE, BlkEngine, BlkIo, engine_wait,
)
from acrn_dm.devices.virtio_blk.native.shortcut._shortcut cimport BLK_AT_ONCE, BlkShortcut
from acrn_dm.devices.virtio_blk.native.tasks._answers cimport BlkAnswers
from acrn_dm.devices.virtio_blk.native.tasks._task cimport (
    BlkTask, task_aligned, task_data, task_moved, task_piece, task_range, tasks_put, tasks_take,
)
from acrn_dm.devices.virtio_blk.native.throttle._gate cimport BlkGate
from acrn_dm.virtio.native._counters cimport monotonic_ns
from acrn_dm.virtio.native._segments cimport scatter
from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

import os
from time import monotonic

from acrn_dm.base.errors import GuestError


cdef enum:
    DEEP = 4                  # chains of a batch for which one call of the engine's is cheaper than a call for each
    FRESH_NS = 20000          # a look at the file's length is good for reads that end within that
    ATTEMPTS = 8              # of a call that the kernel wants made again

STUCK = []  # services whose requests the host has not given back: what those use lives as long as the process


cdef class BlkService(BlkAnswers):
    """The executor of the chains of *ring*, whose owner publishes the answers. *serial* is what get-id answers."""

    def __cinit__(self, RingBase ring not None, bytes serial not None, *, bint legacy):
        self.legacy = legacy
        cdef bytes text = serial[:BLK_SERIAL].ljust(BLK_SERIAL, b"\0")
        memcpy(self.serial, <const char *>text, BLK_SERIAL)

    def adopt(self, BlkEngine engine, image, *, uint32_t alignment, bint in_memory):
        """Execute on *image* by *engine*. *alignment* is that of O_DIRECT, 0 without. Not while requests run."""
        self.engine = engine
        self.standing = image.trust.standing
        self.known = &self.standing.state
        self.fd, self.start, self.alignment = image.fd, image.start, alignment
        # Of a file that is not ours to write the kernel does not say what is in memory.
        maps = in_memory and os.access(f"/proc/self/fd/{image.fd}", os.W_OK, effective_ids=True)
        cached = alignment == 0 and image.fd >= 0  # an engine need have no file
        self.shortcut = BlkShortcut(self.standing, image.fd, cached=cached, in_memory=in_memory, maps=maps)

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
        cdef BlkExtent extents[BLK_MAX_EXTENTS]
        cdef BlkRequest request
        cdef BlkTask *task
        cdef int status = blk_parse(chain, &self.limits, &request, extents)
        if status == BLK_S_NO_ROOM:
            return BLK_NO_ROOM
        if status != BLK_S_OK or self.engine is None:
            self.respond(chain, status if status != BLK_S_OK else BLK_S_IOERR, 0)
            return 0
        if self.gate is None and request.op <= BLK_WRITE and self.by_shortcut(chain, &request):
            return 0
        task = self.accepted(chain, &request, extents)
        if task == NULL:
            return BLK_NO_TASK
        if self.gate is None or not self.gate.parks(task):
            self.start_task(task)
        return 0

    cdef bint by_shortcut(self, const FrChain *chain, const BlkRequest *request) noexcept nogil:
        """Execute a read or write that needs no engine; false if it does need one."""
        cdef uint32_t n
        cdef bint done
        if not 0 < request.length <= BLK_AT_ONCE or chain.n_in + chain.n_out > BLK_SHORT or self.known.cut:
            return False
        if request.op == BLK_READ:
            n = blk_window(chain.segments + chain.n_out, chain.n_in, 0, request.length, self.short_iov)
            if self.n_ready == BLK_READY or not self.shortcut.read(
                self.short_iov, n, self.start + request.offset, request.length, self.deep
            ):
                return False
            self.ready[self.n_ready].chain, self.ready[self.n_ready].request = chain, request[0]
            self.n_ready += 1
            return True
        if not self.may_write():
            return False
        n = blk_window(chain.segments, chain.n_out, BLK_HEADER, request.length, self.short_iov)
        if not self.durable:
            blk_changes(self.known)
        done = self.shortcut.write(self.short_iov, n, self.start + request.offset, request.length, self.durable)
        if not self.durable:
            blk_changes(self.known)
        if done:
            self.respond(chain, BLK_S_OK, 0)
        return done

    cdef bint may_write(self) noexcept nogil:
        """Whether a write may go to the file as things stand; there, or in the Python path's hands."""
        self.looked = self.looked or blk_whole(self.known)
        if self.known.cut:
            return False
        # With earlier writes waiting, a flush has to follow: one that means those, too.
        return not self.durable or not (self.known.lost or self.known.changes != self.known.stable)

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
            self.reply(task, BLK_S_OK, scatter(
                task.chain.segments + task.chain.n_out, task.chain.n_in, 0, self.serial,
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
            self.start_ranges(task)

    cdef void start_ranges(self, BlkTask *task) noexcept nogil:
        cdef bint discards = task.request.op == BLK_DISCARD and not self.known.is_block_device  # which have an ioctl
        self.looked = self.looked or blk_whole(self.known)
        if not self.engine.allocates or self.known.cut or not (discards or task.request.op == BLK_WRITE_ZEROES):
            self.hand(task, 0)
            return
        task.io.kind, task.io.durable = BLK_IO_FALLOCATE, self.durable
        task.left = task.request.n_extents
        self.next_range(task)

    cdef void next_range(self, BlkTask *task) noexcept nogil:
        if task_range(task, self.start):
            if task.request.op == BLK_WRITE_ZEROES and not task.volatile_change:
                task.volatile_change = True
                blk_changes(self.known)
            self.engine.submit(&task.io)
        elif task.volatile_change and task.io.durable:
            task.volatile_change = False
            blk_changes(self.known)
            tasks_put(&self.flushes, task)
        else:
            self.done(task)

    cdef void ranged(self, BlkTask *task, int64_t result) noexcept nogil:
        """A range has come back."""
        blk_punched(self.known)
        if result == 0:
            task.left -= 1
            self.next_range(task)
        elif (result == -EINTR or result == -EAGAIN) and task.attempts < ATTEMPTS:
            task.attempts += 1
            self.engine.submit(&task.io)
        elif result == -EOPNOTSUPP or result == -ENOTTY or result == -EINVAL or result == -ENOSYS:
            self.hand(task, EOPNOTSUPP if task.request.op == BLK_DISCARD else 0)  # zeroes can be written out
        else:
            self.hand(task, <int>-result)

    cdef bint is_pythons(self, const BlkTask *task) noexcept nogil:
        """Whether the request needs what Python has: a legacy driver's buffer, a descriptor without O_DIRECT."""
        return self.legacy or not task_aligned(task, self.alignment)

    cdef void start_read(self, BlkTask *task) noexcept nogil:
        task.io.kind, task.io.durable = BLK_IO_READ, False
        if self.is_pythons(task):
            self.hand(task, 0)
        else:
            self.send(task)

    cdef void start_write(self, BlkTask *task) noexcept nogil:
        if not self.may_write() or self.is_pythons(task):
            self.hand(task, 0)
            return
        task.io.kind, task.io.durable = BLK_IO_WRITE, self.durable
        if not self.durable:
            task.volatile_change = True
            blk_changes(self.known)
        self.send(task)

    cdef void send(self, BlkTask *task) noexcept nogil:
        task_piece(task)
        self.engine.submit(&task.io)

    cdef void went(self, BlkTask *task, int64_t result) noexcept nogil:
        """A piece has come back."""
        if result > 0:
            task_moved(task, <uint32_t>result)
            if task.left == 0:
                self.done(task)
            elif self.is_pythons(task):
                self.hand(task, 0)
            else:
                self.send(task)
            return
        task_moved(task, 0)
        if (result == -EINTR or result == -EAGAIN) and task.attempts < ATTEMPTS:
            task.attempts += 1
            self.send(task)
        elif result == -EINVAL and self.alignment != 0 and task.bounce.hva == NULL and self.bounce(task):
            self.send(task)  # O_DIRECT does not like the guest's buffers
        elif result == 0 or (result == -EINVAL and self.alignment != 0):
            self.failed(task, 0)  # the file has ended, or there are no buffers left
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

    cdef void settle(self) noexcept nogil:
        self.looked = False
        if self.engine is None:
            return
        if self.flushes.first != NULL and self.flushing.first == NULL:
            self.start_flush()
        self.engine.commit()
        if self.n_ready > 0 or self.filled.first != NULL:
            self.settle_reads()

    cdef void settle_reads(self) noexcept nogil:
        """Answer reads that are done, unless the file was cut."""
        cdef bint whole = self.still_whole()
        cdef BlkTask *task
        cdef uint32_t i
        for i in range(self.n_ready):
            if whole:
                self.respond(self.ready[i].chain, BLK_S_OK, self.ready[i].request.length)
                continue
            task = self.accepted(self.ready[i].chain, &self.ready[i].request, NULL)
            if task != NULL:
                self.hand(task, 0)
            else:  # no memory for what says why
                self.respond(self.ready[i].chain, BLK_S_IOERR, 0)
        self.n_ready = 0
        task = tasks_take(&self.filled)
        while task != NULL:
            if whole:
                self.reply(task, BLK_S_OK, task.request.length)
            else:
                self.hand(task, 0)
            task = tasks_take(&self.filled)

    cdef bint still_whole(self) noexcept nogil:
        cdef int64_t now = monotonic_ns()
        if now - self.looked_at > FRESH_NS:
            self.looked_at = now
            blk_whole(self.known)
        return not self.known.cut

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
                elif io.kind == BLK_IO_FALLOCATE:
                    self.ranged(<BlkTask *>io, io.result)
                else:
                    self.went(<BlkTask *>io, io.result)
                io = following

    cdef void start_flush(self) noexcept nogil:
        if blk_try_sync(self.known, &self.sync.before):
            self.flushing = self.flushes
            self.flushes.first = NULL
            self.sync.io.kind, self.sync.attempts = BLK_IO_SYNC, 0
            self.engine.submit(&self.sync.io)
            return
        # Another queue's is under way, and this one has to come after it: a thread waits for that.
        while self.flushes.first != NULL:
            self.hand(tasks_take(&self.flushes), 0)

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
                self.settle()
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
        if self.shortcut is not None:
            self.shortcut.close()
        if self.gate is not None:
            self.gate.close()
        self.engine = None
        self.free_tasks()
