# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The plane of virtio-blk: what stands between a virtqueue, the executor of its requests and the event loop."""

from acrn_dm._fastring cimport FrBatch
from acrn_dm.base.events._poll cimport EventPoll
from acrn_dm.devices.virtio_blk.native._service cimport BLK_NO_ROOM, BlkService
from acrn_dm.devices.virtio_blk.native.throttle._gate cimport BlkGate
from acrn_dm.devices.virtio_blk.native.throttle._throttle cimport BlkThrottle
from acrn_dm.virtio.native._plane cimport Plane
from libc.stdint cimport uint16_t, uint32_t

from acrn_dm.base.errors import GuestError

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN

cdef enum:
    BATCH = 16                # chains at once: while they are executed the driver makes others of the last ones
    TURNS = 4                 # looks at what has completed, in a row
    FAULTS = -2000            # below: BlkService's


cdef inline uint32_t waiting(BlkService service) noexcept nogil:
    return 0 if service.gate is None else service.gate.waiting


cdef class BlkPlane(Plane):
    """The plane of one queue, whose requests *service* executes; *events* is the set of the loop that serves it."""

    def __cinit__(self, BlkService service not None, EventPoll events not None):
        self.service = service
        self.events = events
        self.link.plane = <void *>self
        self.event_fd = -1
        service.answer, service.context = <void (*)(void *, uint16_t, uint32_t) noexcept nogil>_answer, <void *>self

    def watch(self):
        """Be told of completions, if there is a medium. With the loop held, or before the queue starts."""
        cdef BlkService service = self.service
        if self.event_fd >= 0 or service.engine is None:
            return
        self.events.add_native(
            service.engine.event_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_completed,
            <void *>&self.link, self,
        )
        self.event_fd = service.engine.event_fd
        self.looking = False
        self.events.add_poller(
            <int (*)(void *) noexcept nogil>_look, <bint (*)(void *, bint) noexcept nogil>_switch, <void *>&self.link
        )

    def unwatch(self):
        """Be told no more. With the loop held. Idempotent."""
        if self.event_fd >= 0:
            self.events.remove_poller(<void *>&self.link)
            self.events.remove_native(self.event_fd)
            self.event_fd = -1
        if self.service.gate is not None and self.service.gate.timer_fd >= 0:
            self.events.remove_native(self.service.gate.timer_fd)
        self.events.outstanding -= self.counted
        self.counted = 0

    def restrain(self, BlkThrottle throttle not None):
        """Have requests wait for the limits of *throttle*, which may be new or others than before. With the loop held.
        Raises OSError.
        """
        cdef BlkGate gate = self.service.gate
        if gate is None:
            gate = BlkGate(throttle)
            self.events.add_native(
                gate.timer_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_completed,
                <void *>&self.link, self,
            )
            self.service.restrain(gate)
        with nogil:
            _look(&self.link)

    def drain(self, double seconds):
        """Wait until nothing is in flight, and show the answers; false if that takes longer. With the loop held."""
        idle = self.service.drain(seconds)
        self.flush()
        self.count()
        return idle

    def failure(self, int status):
        """The exception for *status*."""
        if status == FAULTS + BLK_NO_ROOM:
            return GuestError("block request without room for the status byte")
        return Plane.failure(self, status)

    cdef uint32_t room(self) noexcept nogil:
        return BATCH

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        cdef int status = 0
        cdef uint32_t waited = waiting(self.service)
        self.service.begin(batch.n_chains)
        for i in range(batch.n_chains):
            status = self.service.accept(&batch.chains[i])
            if status < 0:
                break
        self.counters.counts.throttled += waiting(self.service) - waited
        self.service.settle()
        self.turn()
        return FAULTS + status if status < 0 else <int>batch.n_chains

    cdef bint turn(self) noexcept nogil:
        """Answer what has completed, and see to it that we hear of the rest; returns whether anything had."""
        cdef bint did
        cdef int _turn
        if self.service.engine is None:
            return False
        did = self.service.unpark()
        for _turn in range(TURNS):
            if self.service.engine.in_flight == 0 or not self.service.collect():
                break
            did = True
            self.service.settle()
        if self.service.engine.in_flight != 0 and not self.looking and self.service.engine.arm():
            self.events.again(self.event_fd)
        if self.service.handed.first != NULL:
            self.events.ask(self.event_fd)
        self.count()
        return did

    cdef void count(self) noexcept nogil:
        """Tell a loop that is stepped what is under way."""
        cdef int under_way = <int>(self.service.in_flight - waiting(self.service))
        self.events.outstanding += under_way - self.counted
        self.counted = under_way


cdef void _answer(BlkPlane self, uint16_t head, uint32_t written) noexcept nogil:
    self.complete(head, written)


cdef bint _look(BlkLink *link) noexcept nogil:
    cdef bint did = (<BlkPlane>link.plane).turn()
    if did:
        (<BlkPlane>link.plane).show_late()
    return did


cdef void _completed(BlkLink *link, uint32_t events) noexcept nogil:
    _look(link)


cdef bint _switch(BlkLink *link, bint polling) noexcept nogil:
    """The end of polling is as a completion: the engine is to tell from now on."""
    (<BlkPlane>link.plane).looking = polling
    return False if polling else _look(link)
