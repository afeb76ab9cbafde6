# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The relay of one queue in C: chains are noted and passed on by their head in a shadow ring, answers come back."""

from acrn_dm._fastring cimport FrBatch, fs_add, fs_close, fs_open, fs_publish, fs_returned, fs_take
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t

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
        if self._shadow.avail != NULL:
            PyBuffer_Release(&self._view)
        PyMem_Free(self._notes)

    def connect(self, memory, *, uint32_t avail, uint32_t used, int kick_fd, int call_fd):
        """A back-end is going to use the shadow ring at these offsets of *memory*, which is empty: everything in flight
        is available there, in the order in which it came.
        """
        cdef uint16_t head = self._notes[self._size].behind
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        fs_open(&self._shadow, <uint8_t *>self._view.buf + avail, <uint8_t *>self._view.buf + used, self._size)
        self._broken = False
        while head != self._size:
            fs_add(&self._shadow, head)
            head = self._notes[head].behind
        fs_publish(&self._shadow)
        self._shadow_kick, self._shadow_call = kick_fd, call_fd
        self.poll.add_native(call_fd, EPOLLIN | EPOLLET, <void (*)(void *, uint32_t) noexcept nogil>_called,
                             <void *>self, self)

    def disconnect(self):
        """Nobody uses the shadow ring any more. Idempotent."""
        if self._shadow.avail == NULL:
            return
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
            self._note(batch.chains[i].head, batch.chains[i].in_bytes)
            if self._shadow.avail != NULL:
                fs_add(&self._shadow, batch.chains[i].head)
        if self._shadow.avail != NULL:
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

    cdef void _publish(self) noexcept nogil:
        fs_publish(&self._shadow)
        self._signal.signal_fd(self._shadow_kick)

    cdef bint _answer(self) noexcept nogil:
        """Pass on what came back; false where that is nonsense."""
        cdef uint32_t left
        cdef uint32_t head = 0
        cdef uint32_t written = 0
        if self._shadow.avail == NULL or self._broken:
            return not self._broken
        left = fs_returned(&self._shadow)
        if left > self._size:
            self._broken = self._jumped = True
            self._nonsense_head = left
            return False
        while left > 0:
            left -= 1
            fs_take(&self._shadow, &head, &written)
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
