# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The relay of one queue in C: chains are noted and passed on by their head in a shadow ring, answers come back."""

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u16, fr_load_u32, fr_store_release_u16, fr_store_u16,
)
from acrn_dm.ring.native._records cimport FrBatch
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memset

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET
        EPOLLIN


cdef class RelayPlane(Plane):
    """The relay of a queue of *size* entries. ``connect``, ``disconnect``, ``answer`` and ``notify`` want the
    loop held. What a back-end writes into its ring is read once and checked; nonsense is told by ``complaint``.
    """

    def __cinit__(self, uint32_t size):
        self._size = size
        self._shadow_kick = self._shadow_call = -1
        self._notes = <Note *>PyMem_Calloc(size + 1, sizeof(Note))
        if self._notes == NULL:
            raise MemoryError()
        self._notes[size].before = self._notes[size].behind = <uint16_t>size
        self._signal = KernelSignal()  # OSError where the host has no asynchronous I/O: then Python relays

    def __dealloc__(self):
        if self._avail != NULL:
            PyBuffer_Release(&self._view)
        PyMem_Free(self._notes)

    def connect(self, memory, *, uint32_t avail, uint32_t used, int kick_fd, int call_fd):
        """A back-end is going to use the shadow ring at these offsets of *memory*, which is empty: everything in flight
        is available there, in the order in which it came.
        """
        cdef uint16_t head = self._notes[self._size].behind
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._avail, self._used = <uint8_t *>self._view.buf + avail, <uint8_t *>self._view.buf + used
        memset(self._avail, 0, 6 + 2 * self._size)
        memset(self._used, 0, 6 + 8 * self._size)
        self._next_avail = self._last_used = 0
        self._broken = False
        while head != self._size:
            self._add(head)
            head = self._notes[head].behind
        fr_store_release_u16(self._avail + 2, self._next_avail)
        self._shadow_kick, self._shadow_call = kick_fd, call_fd
        self.poll.add_native(call_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_called,
                             <void *>self, self)

    def disconnect(self):
        """Nobody uses the shadow ring any more. Idempotent."""
        if self._avail == NULL:
            return
        self.poll.remove_native(self._shadow_call)
        self._avail = self._used = NULL
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
            self._note(batch.chains[i].head, batch.chains[i].in_bytes)
            if self._avail != NULL:
                self._add(batch.chains[i].head)
        if self._avail != NULL:
            self._publish()
        return <int>batch.n_chains

    cdef void _note(self, uint16_t head, uint32_t in_bytes) noexcept nogil:
        cdef Note *end = &self._notes[self._size]
        cdef Note *note = &self._notes[head]
        note.in_bytes, note.in_flight = in_bytes, True
        note.before, note.behind = end.before, <uint16_t>self._size
        self._notes[end.before].behind = head
        end.before = head
        self.in_flight += 1

    cdef void _forget(self, uint16_t head) noexcept nogil:
        cdef Note *note = &self._notes[head]
        self._notes[note.before].behind = note.behind
        self._notes[note.behind].before = note.before
        note.in_flight = False
        self.in_flight -= 1

    cdef void _add(self, uint16_t head) noexcept nogil:
        fr_store_u16(self._avail + 4 + 2 * (self._next_avail & (self._size - 1)), head)
        self._next_avail += 1

    cdef void _publish(self) noexcept nogil:
        fr_store_release_u16(self._avail + 2, self._next_avail)
        self._signal.signal_fd(self._shadow_kick)

    cdef bint _answer(self) noexcept nogil:
        """Pass on what came back; false where that is nonsense."""
        cdef uint8_t *element
        cdef uint16_t index
        cdef uint32_t head
        cdef uint32_t written
        if self._avail == NULL or self._broken:
            return not self._broken
        index = fr_load_acquire_u16(self._used + 2)
        if <uint16_t>(index - self._last_used) > self._size:
            self._broken = self._jumped = True
            self._nonsense_head = <uint16_t>(index - self._last_used)
            return False
        while self._last_used != index:
            element = self._used + 4 + 8 * (self._last_used & (self._size - 1))
            head, written = fr_load_u32(element), fr_load_u32(element + 4)
            self._last_used += 1
            if head >= self._size or not self._notes[head].in_flight or written > self._notes[head].in_bytes:
                self._broken, self._jumped = True, False
                self._nonsense_head, self._nonsense_bytes = head, written
                return False
            self._forget(<uint16_t>head)
            self.complete(<uint16_t>head, written)
        return True


cdef void _called(RelayPlane self, uint32_t events) noexcept nogil:
    if not self._answer():
        self.poll.ask(self._shadow_call)
    self.flush()
