# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A virtqueue served in C, on an event loop and without the GIL: kicks, batches, interrupts, faults, counters.

Stopping has two halves, as everywhere. After ``stop`` no chain is taken any more, and what is in flight may still be
completed. After ``detach`` the ring is somebody else's: completions are late, and dropped. Whoever calls them does so
with the loop held, so both find the plane between two batches.
"""

from acrn_dm._fastring cimport (
    FR_E_NOT_IN_FLIGHT, FR_EMPTY, FR_OK, vq_disable_kicks, vq_enable_kicks, vq_hold, vq_look, vq_pop_batch, vq_publish,
    vq_push, vq_raise, vq_release, vq_unpop,
)
from acrn_dm.virtio.native._counters cimport monotonic_ns
from libc.stdint cimport int64_t, uint64_t
from posix.unistd cimport write as c_write

from acrn_dm.base.errors import GuestError

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN

cdef enum:
    LINGER_NS = 1500          # about what the system calls of sleeping cost, without the wait
    MAX_LINGER_SKIP = 255


cdef class Plane:
    """One queue's data plane. It serves one driver after another: ``start``, ``stop``, ``detach``, and again."""

    def __cinit__(self):
        self.call_fd = self.kick_fd = -1

    @staticmethod
    def takes(ring):
        """Whether *ring* can be served in C: one of the native rings, with nothing before it."""
        return isinstance(ring, NativeRing)

    def start(self, NativeRing ring not None, EventPoll poll not None, QueueCounters counters not None, *, int kick_fd,
              int call_fd=-1, bint timed=False, Coalescer coalescer=None):
        """Serve *ring* on the loop whose set is *poll*: when *kick_fd* is signalled, or with *timed* when ``look`` is
        called. *call_fd* is an eventfd of ours that interrupts; without it ``asked`` says when to. *coalescer*: whether
        interrupts wait, which may change at any time (``Queue.coalesce``). Raises OSError.
        """
        if self.vq != NULL:
            raise RuntimeError("the plane serves a queue already")
        self.ring, self.poll, self.counters = ring, poll, counters
        self.kick_fd, self.call_fd, self.timed = kick_fd, call_fd, timed
        self.coalescer = Coalescer() if coalescer is None else coalescer
        self.coalescer.serve(poll, kick_fd)
        self.polling = self.call_wanted = self.quiet = False
        self.linger_misses = self.linger_skip = 0
        self.status = FR_OK
        self.generation += 1
        self.batch = ring.batch
        self.vq = ring.virtqueue()
        self.running = True
        try:
            poll.add_native(kick_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_kicked,
                            <void *>self, self)
        except BaseException:
            self.detach()
            raise
        if not timed:
            poll.add_poller(<int (*)(void *) noexcept nogil>_poll, <bint (*)(void *, bint) noexcept nogil>_switch,
                            <void *>self)

    def stop(self):
        """Take no more chains. With the loop held. Idempotent."""
        self.running = False
        if self.poll is not None:
            self.coalescer.serve(None, -1)
            self.poll.remove_poller(<void *>self)
            self.poll.remove_native(self.kick_fd)

    def detach(self):
        """Forget the ring; completions of this driver's are late from now on. With the loop held. Idempotent."""
        self.running = False
        self.vq = NULL
        self.ring = None
        self.generation += 1

    def look(self):
        """Look at the ring now. On the loop's thread, or with the loop held."""
        with nogil:
            self._turn()

    def asked(self):
        """What C hands over: (whether to interrupt the driver, why the queue is dead or None). On the loop's thread."""
        return self.owes_call(), self.failure(self.status) if self.status != FR_OK else None

    def owes_call(self):
        """Whether the driver is still to be interrupted; not any more afterwards. For who has stopped the plane, behind
        which nobody hears what it asks for. With the loop held.
        """
        cdef bint call = self.call_wanted
        self.call_wanted = False
        return call

    def failure(self, int status):
        """The exception for *status*, which ended the queue. Override it for numbers of the device's own."""
        try:
            if self.vq != NULL:
                vq_raise(self.vq, status)
        except (GuestError, ValueError) as e:
            return e.with_traceback(None)
        return RuntimeError(f"the plane failed: {status}")

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        """Without an override each chain comes back at once, with nothing written."""
        cdef uint32_t i
        for i in range(batch.n_chains):
            self.complete(batch.chains[i].head, 0)
        return <int>batch.n_chains

    cdef uint32_t room(self) noexcept nogil:
        return PLANE_BATCH

    cdef void complete(self, uint16_t head, uint32_t written) noexcept nogil:
        if self.vq == NULL:
            self.counters.counts.late += 1
        elif vq_push(self.vq, head, written) != FR_OK:
            self.die(FR_E_NOT_IN_FLIGHT)
        else:
            self.counters.gave(head, written)

    cdef void complete_of(self, uint32_t generation, uint16_t head, uint32_t written) noexcept nogil:
        if generation == self.generation:
            self.complete(head, written)
        else:
            self.counters.counts.late += 1

    cdef void flush(self) noexcept nogil:
        cdef bint wanted
        if self.vq == NULL or self.counters.n_pending == 0:
            return
        if self.coalescer.active and self.running:
            self._hold()
            return
        wanted = vq_publish(self.vq)
        self.counters.showed(wanted)
        if wanted:
            self._interrupt()

    cdef void _hold(self) noexcept nogil:
        """Show what was returned; its interrupt waits."""
        cdef bint waits = self.coalescer.holding
        cdef uint64_t returned = self.counters.counts.returned
        cdef int64_t now
        if not vq_hold(self.vq):
            self.counters.showed(False)
            self.coalescer.skip(returned)
            return
        now = monotonic_ns()
        self.counters.held(now)
        if self.coalescer.add(returned, now):
            self._settle()
        elif not waits and self.coalescer.by_loop:
            self.poll.ask(self.kick_fd)
        elif not waits:
            self.poll.at(self.kick_fd, self.coalescer.deadline)

    cdef void _settle(self) noexcept nogil:
        """The wait is over: interrupt the driver if it still wants that."""
        cdef bint wanted = vq_release(self.vq)
        self.coalescer.over(self.counters.counts.returned)
        self.counters.let_go(wanted)
        if wanted:
            self._interrupt()

    cdef void _interrupt(self) noexcept nogil:
        cdef uint64_t one = 1
        if self.call_fd >= 0:
            c_write(self.call_fd, &one, sizeof(one))  # non-blocking: a full one is readable anyway
        else:
            self.call_wanted = True
            self.poll.ask(self.kick_fd)

    cdef void wake(self) noexcept nogil:
        if self.running:
            self.poll.again(self.kick_fd)

    cdef void die(self, int status) noexcept nogil:
        if self.status == FR_OK:
            self.status = status
            self.running = False
            self.poll.ask(self.kick_fd)

    cdef bint _turn(self) noexcept nogil:
        """Interrupt if that has waited long enough, then serve."""
        if not self.running:
            return False
        if self.coalescer.holding and not self.coalescer.by_loop and monotonic_ns() >= self.coalescer.deadline:
            self._settle()
        return self.serve()

    cdef bint show_late(self) noexcept nogil:
        """Show what was returned since its batch, and serve what a driver that polls makes of it."""
        if not self._lingers():
            self.flush()
            return False
        self._quieten()
        self.flush()
        return self.serve() if self._linger() or not self._sleep() else False

    cdef bint serve(self) noexcept nogil:
        """Take batches until the ring is empty or others have to have their turn; returns whether there was any."""
        cdef uint32_t room
        cdef int taken
        cdef int _round
        cdef bint did = False
        cdef uint64_t returned = self.counters.counts.returned
        if not self.running:
            return False
        self._quieten()
        for _round in range(PLANE_ROUNDS):
            room = self.room()
            taken = self._take(room) if room > 0 else 0
            if taken == 0 and room > 0 and self.counters.counts.returned != returned and self._lingers():
                taken = self._take(room) if self._linger() else 0
            if taken < 0:
                self.die(taken)
            if not self.running:
                return True
            if taken > 0:
                did = True
            elif room == 0 or self._sleep():
                return did
        if not self.polling:
            self.poll.again(self.kick_fd)
        return did

    cdef void _quieten(self) noexcept nogil:
        """Want no kicks: said once, for what says it lies where the driver looks for used buffers."""
        if not self.quiet:
            self.quiet = True
            vq_disable_kicks(self.vq)

    cdef int _take(self, uint32_t room) noexcept nogil:
        """Pop a batch, have it handled, show what came back; how many were taken, or why the queue is dead."""
        cdef int status = vq_pop_batch(self.vq, &self.batch, room)
        cdef int64_t now
        cdef int taken
        cdef int i
        if status != FR_OK:
            return 0 if status == FR_EMPTY else status
        now = monotonic_ns()
        for i in range(<int>self.batch.n_chains):
            self.counters.took_one(self.batch.chains[i].head, self.batch.chains[i].out_bytes, now)
        taken = self.handle(&self.batch)
        i = <int>self.batch.n_chains
        while taken >= 0 and i > taken:
            i -= 1
            self.counters.counts.bytes_out -= self.batch.chains[i].out_bytes
            vq_unpop(self.vq, &self.batch.chains[i])
        if taken > 0:
            self.counters.took(<uint32_t>taken)
        self.flush()
        return taken

    cdef bint _lingers(self) noexcept nogil:
        """Whether to look for a moment for what the driver makes of the answers. Where that finds nothing it is done
        ever more rarely.
        """
        if self.timed or self.polling or not self.running:
            return False
        if self.linger_skip > 0:
            self.linger_skip -= 1
            return False
        return True

    cdef bint _linger(self) noexcept nogil:
        """Look for a moment for what a driver that polls makes of the answers: that costs less than to sleep and be
        woken. Returns whether there is something.
        """
        cdef int64_t end = monotonic_ns() + LINGER_NS
        while True:
            if vq_look(self.vq) != FR_EMPTY:
                self.linger_misses = 0
                return True
            if monotonic_ns() >= end:
                break
        self.linger_misses = self.linger_skip = min(2 * self.linger_misses + 1, <uint32_t>MAX_LINGER_SKIP)
        return False

    cdef bint _sleep(self) noexcept nogil:
        """Ask for a kick, unless somebody looks anyway; false if chains came meanwhile."""
        cdef int status
        if self.timed or self.polling:
            return True
        self.quiet = False
        status = vq_enable_kicks(self.vq)
        if status == FR_EMPTY:
            return True
        if status < 0:
            self.die(status)
            return True
        self._quieten()
        return False


cdef void _kicked(Plane self, uint32_t events) noexcept nogil:
    self.counters.counts.kicks += events != 0
    self._turn()


cdef bint _poll(Plane self) noexcept nogil:
    return self._turn()


cdef bint _switch(Plane self, bint polling) noexcept nogil:
    """The end of polling is as a kick: it asks for the next one, or finds that there is more."""
    self.polling = polling
    return False if polling else self._turn()
