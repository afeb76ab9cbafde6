# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The relay of one queue in C: chains are noted and passed on by their head in a shadow ring, answers come back.

A loop that polls looks for answers as well as for chains, and is told of none meanwhile; nor is a back-end told of
chains while it looks by itself. That holds for split rings.
"""

from acrn_dm._fastring cimport (
    FR_SHADOW_JUMPED, FR_SHADOW_TAKEN, Chain, FrBatch, fs_add, fs_close, fs_free, fs_make, fs_note, fs_open, fs_publish,
    fs_take, fs_want_calls, fs_wants_kick,
)
from acrn_dm.base.events._poll cimport POLL_NOTHING, POLL_OWED, POLL_WORK
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint16_t

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN

cdef enum:
    PATIENCE_NS = 32000       # of the loop, for answers and for what a driver makes of them


cdef class RelayPlane(Plane):
    """The relay of a queue of *size* entries. ``connect``, ``disconnect``, ``answer`` and ``notify`` want the
    loop held. What a back-end writes into its ring is read once and checked; nonsense is told by ``complaint``.
    """

    def __cinit__(self, uint32_t size, bint packed=False):
        self._size = size
        self._shadow_kick = self._shadow_call = -1
        self._link.plane = <void *>self
        if not fs_make(&self._shadow, size, packed):
            raise MemoryError()
        self._signal = KernelSignal()  # OSError where the host has no asynchronous I/O: then Python relays

    def __dealloc__(self):
        if self._shadow.is_open:
            PyBuffer_Release(&self._view)
        fs_free(&self._shadow)

    @property
    def in_flight(self):
        """Chains that the back-end owes."""
        return self._shadow.n_in_flight

    def adopt(self, chains):
        """Note *chains*, of a split ring, which were taken before this began."""
        cdef Chain chain
        for chain in chains:
            fs_note(&self._shadow, NULL, &chain.chain)

    def connect(self, memory, *, uint32_t desc, uint32_t avail, uint32_t used, int kick_fd, int call_fd):
        """A back-end is going to use the shadow ring at these offsets of *memory*, which is empty: everything in flight
        is available there, in the order in which it came.
        """
        cdef uint8_t *base
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        base = <uint8_t *>self._view.buf
        fs_open(&self._shadow, base + desc, base + avail, base + used)
        self._broken = False
        self._shadow_kick, self._shadow_call = kick_fd, call_fd
        self.poll.add_native(call_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_called,
                             <void *>self, self)
        self.poll.add_poller(
            <int (*)(void *) noexcept nogil>_poll, <bint (*)(void *, bint) noexcept nogil>_switch, <void *>&self._link,
            PATIENCE_NS,
        )

    def look_no_more(self):
        """Have the back-end tell of every answer from now on. Idempotent."""
        if self._shadow.is_open:
            self.poll.remove_poller(<void *>&self._link)
            fs_want_calls(&self._shadow, True)

    def disconnect(self):
        """Nobody uses the shadow ring any more. Idempotent."""
        if not self._shadow.is_open:
            return
        self.poll.remove_poller(<void *>&self._link)
        self.poll.remove_native(self._shadow_call)
        fs_close(&self._shadow)
        self._shadow_kick = self._shadow_call = -1
        PyBuffer_Release(&self._view)

    def let_go(self):
        """Give back what signals: nothing is passed on any more. Stopped and disconnected it is."""
        self._signal = None

    def notify(self):
        """Tell the back-end to look at the ring."""
        if self._shadow_kick >= 0:
            self._signal.signal(self._shadow_kick)

    def answer(self):
        """Pass on what came back so far."""
        with nogil:
            self._answer()
            self.flush()

    def complaint(self):
        """What is wrong with what the back-end wrote; None if nothing is."""
        if not self._broken:
            return None
        if self._jumped:
            return f"its used index jumped by {self._nonsense_head} in a ring of {self._size}"
        return f"it returned descriptor {self._nonsense_head} with {self._nonsense_bytes} bytes, which nobody asked for"

    cdef int handle(self, FrBatch *batch) noexcept nogil:
        cdef uint32_t i
        for i in range(batch.n_chains):
            fs_note(&self._shadow, self.vq, &batch.chains[i])
            if self._shadow.is_open:
                fs_add(&self._shadow, batch.chains[i].head)
        if self._shadow.is_open:
            self._publish()
        return <int>batch.n_chains

    cdef void _publish(self) noexcept nogil:
        fs_publish(&self._shadow)
        if fs_wants_kick(&self._shadow):
            self._signal.signal_fd(self._shadow_kick)

    cdef bint _answer(self) noexcept nogil:
        """Pass on what came back; false where that is nonsense."""
        cdef uint32_t head = 0
        cdef uint32_t written = 0
        cdef int status
        if not self._shadow.is_open or self._broken:
            return not self._broken
        while True:  # each round returns a chain that is in flight
            status = fs_take(&self._shadow, &head, &written)
            if status != FR_SHADOW_TAKEN:
                break
            self.complete(<uint16_t>head, written)
        if status < 0:
            self._broken, self._jumped = True, status == FR_SHADOW_JUMPED
            self._nonsense_head, self._nonsense_bytes = head, written
        return not self._broken

    cdef bint _look(self) noexcept nogil:
        """Pass on what came back, and serve what the driver makes of it; whether anything had."""
        cdef uint32_t before = self._shadow.n_in_flight
        if not self._answer():
            self.poll.ask(self._shadow_call)
        if self._shadow.n_in_flight == before:
            return False
        self.show_late()
        return True


cdef void _called(RelayPlane self, uint32_t events) noexcept nogil:
    self._look()


cdef int _poll(RelayLink *link) noexcept nogil:
    if (<RelayPlane>link.plane)._look():
        return POLL_WORK
    return POLL_OWED if (<RelayPlane>link.plane)._shadow.n_in_flight > 0 else POLL_NOTHING


cdef bint _switch(RelayLink *link, bint polling) noexcept nogil:
    """The end of polling is as a call: it asks for the next one, or finds that there is more."""
    fs_want_calls(&(<RelayPlane>link.plane)._shadow, not polling)
    return False if polling else (<RelayPlane>link.plane)._look()
