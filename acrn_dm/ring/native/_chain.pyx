# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Descriptor chains as Python sees them, and what a ring has to be for that."""

cimport cython
from acrn_dm.ring.native._memory cimport FrSegment, MemoryMap, fr_gpa_of, new_view
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

cdef enum:
    # A copy this long takes some 10 us, longer than a contended wait for the GIL is likely to cost everyone else.
    NOGIL_COPY_BYTES = 262144


@cython.no_gc
cdef class RingBase:
    """The ring that chains came from, as far as they need it: its memory, which it uses from ``open`` to ``close``."""

    def __cinit__(self):
        self.closed = True

    def __dealloc__(self):
        if self.memory is not None and not self.closed:
            self.memory.users -= 1

    cdef int open(self, MemoryMap memory) except -1:
        """Begin to use *memory*, which can't be closed from now on."""
        self.memory = memory
        memory.users += 1
        self.closed = False
        return 0

    cdef FrVirtqueue *virtqueue(self) noexcept:
        """The ring in C, for whoever serves it without Python; good until ``close``."""
        return &self.queue

    def close(self):
        """Let go of the memory; again is harmless. Chains not pushed die; their views stay valid until released."""
        if self.closed:
            return
        self.closed = True
        self.memory.users -= 1


cdef Chain new_chain(RingBase ring, const FrChain *source):
    """Copy a chain out of the batch, whose arrays the next batch reuses."""
    cdef Chain self = Chain.__new__(Chain)
    cdef size_t n_segments = source.n_out + source.n_in
    self.chain = source[0]
    self.chain.segments = self.few
    if n_segments > FR_INLINE_SEGMENTS:
        self.chain.segments = <FrSegment *>PyMem_Malloc(n_segments * sizeof(FrSegment))
        if self.chain.segments == NULL:
            raise MemoryError()
    memcpy(self.chain.segments, source.segments, n_segments * sizeof(FrSegment))
    self.ring = ring
    return self


cdef void copy_segments(FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) noexcept nogil:
    """Copy between *host* and the segments from *offset* on; the caller has checked that they are long enough."""
    cdef size_t step
    while length > 0:
        if offset >= segments.len:
            offset -= segments.len
            segments += 1
            continue
        step = min(length, segments.len - offset)
        if to_guest:
            memmove(<uint8_t *>segments.hva + offset, host, step)  # the source may be guest memory itself
        else:
            memcpy(host, <uint8_t *>segments.hva + offset, step)
        host += step
        length -= step
        offset += step


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Chain:
    """One descriptor chain: a device-readable part, then a device-writable part, each a run of bytes to the device.

    How the driver cut them into descriptors is not to be relied on (2.6.4), so nothing here tells. Every segment was
    translated and checked when the chain was popped. Dead, that is every access raises ValueError, once it is pushed or
    given back or its ring is closed.
    """

    def __cinit__(self):
        self.done = False

    def __dealloc__(self):
        if self.chain.segments != self.few:
            PyMem_Free(self.chain.segments)

    cdef inline int check(self) except -1:
        if self.ring is None or self.done or self.ring.closed:
            raise ValueError("the chain is no longer in flight")
        return 0

    cdef int finish(self) except -1:
        """End the chain's life. The buffers are the driver's from now on, so the views of them go first."""
        if self.views is not None:
            for view in self.views:
                view.release()
            self.views = None
        self.done = True
        return 0

    cdef int copy(self, FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) except -1:
        if length < NOGIL_COPY_BYTES:
            copy_segments(segments, offset, host, length, to_guest)
            return 0
        cdef MemoryMap memory = self.ring.memory
        memory.users += 1  # another thread may close the ring meanwhile
        with nogil:
            copy_segments(segments, offset, host, length, to_guest)
        memory.users -= 1
        return 0

    @property
    def head(self):
        """Index of the first descriptor: the chain's name in the used ring."""
        return self.chain.head

    @property
    def readable_bytes(self):
        """Length of the device-readable part."""
        return self.chain.out_bytes

    @property
    def writable_bytes(self):
        """Length of the device-writable part."""
        return self.chain.in_bytes

    @property
    def read_offset(self):
        """Where in the readable part ``read`` goes on."""
        return self.cursor

    @property
    def written(self):
        """Bytes from the start of the writable part filled in: where ``write`` goes on, what ``push`` reports."""
        return self.filled

    def read(self, Py_ssize_t length=-1):
        """The next *length* bytes of the readable part, fewer at its end; -1 for the rest.

        The guest chooses how long the rest is, up to 4 GiB: give a length.
        """
        self.check()
        cdef uint32_t left = self.chain.out_bytes - self.cursor
        cdef uint32_t n_bytes = left if length < 0 or length > left else <uint32_t>length
        cdef uint32_t start = self.cursor
        cdef bytes data = PyBytes_FromStringAndSize(NULL, n_bytes)
        self.cursor += n_bytes
        self.copy(self.chain.segments, start, <uint8_t *>PyBytes_AS_STRING(data), n_bytes, False)
        return data

    def write(self, data):
        """Copy *data* to the next bytes of the writable part; returns how many fitted."""
        cdef Py_buffer view
        cdef uint32_t start, left, n_bytes
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.check()  # only now: an exporter may run code of its own
            start = self.filled
            left = self.chain.in_bytes - start
            n_bytes = left if view.len > left else <uint32_t>view.len
            self.filled += n_bytes
            self.copy(self.chain.segments + self.chain.n_out, start, <uint8_t *>view.buf, n_bytes, True)
        finally:
            PyBuffer_Release(&view)
        return n_bytes

    def write_at(self, offset, data):
        """Copy *data* to *offset* of the writable part, such as a status byte at its end.

        ``written`` then reaches to its end at least: fill in what lies before, or push with a number of your own.
        Raises ValueError when it does not fit.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.check()
            if not 0 <= offset <= self.chain.in_bytes - view.len:
                raise ValueError(f"{view.len} bytes at {offset} are not within {self.chain.in_bytes} writable ones")
            self.copy(self.chain.segments + self.chain.n_out, offset, <uint8_t *>view.buf, view.len, True)
            self.filled = max(self.filled, <uint32_t>(offset + view.len))
        finally:
            PyBuffer_Release(&view)

    def advance(self, n):
        """Count *n* bytes from ``written`` on as filled in through ``writable``. Raises ValueError past the end."""
        self.check()
        if not 0 <= n <= self.chain.in_bytes - self.filled:
            raise ValueError(f"cannot advance by {n}: {self.filled} of {self.chain.in_bytes} bytes are written")
        self.filled += <uint32_t>n

    def readable(self, offset=0, length=-1):
        """Read-only views of the readable part, from *offset* on (not from the cursor), for writev.

        *length* -1 means the rest. They end with the chain: push releases them.
        """
        self.check()
        return self.windows(self.chain.segments, self.chain.n_out, self.chain.out_bytes, offset, length, True)

    def writable(self, offset=0, length=-1):
        """Views of the writable part, from *offset* on (give ``written`` to go on), for readv; then call ``advance``.

        *length* -1 means the rest. They end with the chain: push releases them.
        """
        self.check()
        cdef FrSegment *segments = self.chain.segments + self.chain.n_out
        return self.windows(segments, self.chain.n_in, self.chain.in_bytes, offset, length, False)

    def writable_ranges(self):
        """Where the writable part lies: (gpa, length) of each stretch, in order, those that touch as one.

        For requests that are about the memory itself, such as a balloon's; data goes by ``write`` and ``writable``.
        """
        self.check()
        cdef FrSegment *segments = self.chain.segments + self.chain.n_out
        cdef uint64_t start, first = 0, end = 0
        cdef uint32_t i
        cdef list ranges = []
        for i in range(self.chain.n_in):
            start = fr_gpa_of(&self.ring.memory.memory, segments[i].hva)
            if start != end and end > first:
                ranges.append((first, end - first))
            if start != end or end == first:
                first = start
            end = start + segments[i].len
        if end > first:
            ranges.append((first, end - first))
        return ranges

    cdef list windows(self, FrSegment *segments, uint32_t n, uint32_t total, object offset, object length, bint ro):
        if offset < 0 or length < -1:
            raise ValueError(f"offset {offset} or length {length} is negative")
        cdef size_t skip = min(offset, total)
        cdef size_t left = total - skip if length == -1 else min(length, total - skip)
        cdef size_t step
        cdef uint32_t i
        cdef list views = []
        if self.views is None:
            self.views = []
        for i in range(n):
            if left == 0:
                break
            if skip >= segments[i].len:
                skip -= segments[i].len
                continue
            step = min(left, segments[i].len - skip)
            view = new_view(self.ring.memory, <uint8_t *>segments[i].hva + skip, step, ro)
            views.append(view)
            self.views.append(view)
            left -= step
            skip = 0
        return views
