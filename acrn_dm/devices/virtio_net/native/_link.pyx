# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A pair's descriptor on the event loop: what its two queues wait for is watched, and nothing else."""

from acrn_dm._fastring cimport FrSegment
from acrn_dm.devices.virtio_net.native.frames._headers cimport NET_MAX_HEADER
from libc.errno cimport EAGAIN, EFAULT, EINVAL, ENODEV, ENXIO
from libc.stdint cimport int64_t, uint8_t

cdef extern from "<errno.h>" nogil:
    int EBADFD

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLERR
        EPOLLET
        EPOLLHUP
        EPOLLIN
        EPOLLOUT

cdef enum:
    LOST_AT_ONCE = 64         # frames per turn


cdef bint net_gone(int error) noexcept nogil:
    return error == EBADFD or error == ENODEV or error == ENXIO


cdef class NetLink:
    """The two queues of a pair and *port* between them, on the loop whose set is *events*. Methods are called with the
    loop held.
    """

    def __cinit__(self, PacketPort port not None, EventPoll events not None):
        self.port, self.poll = port, events
        self.up = self.starved = True

    def open(self):
        """Watch the descriptor. Raises OSError."""
        if self.port.fd < 0 or self.watched:
            return
        self.events = EPOLLET
        self.poll.add_native(
            self.port.fd, EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_ready, <void *>self, self
        )
        self.watched = True

    def close(self):
        """Watch it no more, and forget the queues. Idempotent."""
        if self.watched:
            self.poll.remove_native(self.port.fd)
        self.watched = False
        self.tx = self.rx = None

    def join(self, Plane plane, bint receives):
        """*plane* serves the receive queue, or else the transmit queue; None: there is no such queue."""
        if receives:
            self.rx, self.starved = plane, True
        else:
            self.tx, self.blocked = plane, False

    def state(self, *, bint up, bint resting, bint losing, bint cut):
        """What holds for both queues from now on: see the fields."""
        self.up, self.resting, self.losing, self.cut = up, resting, losing, cut
        self.follow()

    def look(self):
        """Something has changed: go on with what waited."""
        with nogil:
            self._turn(0)

    def error_taken(self):
        """The errno for which the interface is gone, once; else 0."""
        error, self.error = self.error, 0
        return error

    cdef void follow(self) noexcept nogil:
        cdef uint32_t wanted = EPOLLET
        if not self.watched:
            return
        if self.up and not self.resting:
            if self.losing or (self.rx is not None and self.rx.running and not self.starved):
                wanted |= EPOLLIN
        if self.up and self.blocked and self.tx is not None and self.tx.running:
            wanted |= EPOLLOUT
        if wanted != self.events and self.poll.change(self.port.fd, wanted):
            self.events = wanted

    cdef void lost(self, int error) noexcept nogil:
        if self.up and self.watched:
            self.up = False
            self.error = error
            self.follow()
            self.poll.ask(self.port.fd)

    cdef void moved(self) noexcept nogil:
        if self.port.fd >= 0:
            return
        if self.port.ready and self.rx is not None and not self.starved and not self.rx.polling:
            self.rx.wake()
        if self.blocked and self.tx is not None:
            self.blocked = False
            if not self.tx.polling:
                self.tx.wake()

    cdef void _turn(self, uint32_t events) noexcept nogil:
        """Let both queues have their turn; *events* 0: whatever the descriptor is ready for."""
        cdef bint roomy = events == 0 or events & (EPOLLOUT | EPOLLERR | EPOLLHUP)
        if self.tx is not None and self.blocked and roomy:
            self.blocked = False
            self.tx.serve()
        if self.up and not self.resting:
            if self.losing:
                self._lose()
            elif self.rx is not None:
                self.rx.serve()
        self.follow()

    cdef void _lose(self) noexcept nogil:
        """Read frames for nobody, some at a time."""
        cdef uint8_t[NET_MAX_HEADER] header  # a tap refuses to cut this; of the rest the kernel keeps nothing
        cdef FrSegment piece
        cdef int64_t got
        cdef int _frame
        piece.hva, piece.len = header, NET_MAX_HEADER
        for _frame in range(LOST_AT_ONCE):
            got = self.port.receive(&piece, 1)
            if got == -EAGAIN:
                return
            if got < 0 and got != -EINVAL and got != -EFAULT:
                self.lost(<int>-got)
                return
        if self.watched:
            self.poll.again(self.port.fd)


cdef void _ready(NetLink self, uint32_t events) noexcept nogil:
    self._turn(events)
