# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Guest memory as the rings see it: a guest address becomes a pointer here and nowhere else."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from operator import itemgetter

from acrn_dm.base.errors import GuestError


cdef bint fr_in_ram(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil:
    """Whether all of it is RAM, be it in one region or across touching ones; at most one turn per region."""
    cdef uint64_t room
    while length > 0:
        if fr_translate(memory, gpa, &room) == NULL:
            return False
        if room >= length:
            return True
        gpa += room  # regions end at 2^64 or below: at exactly 2^64 this is 0, and a length left over would start anew
        if gpa == 0:
            return False
        length -= room
    return True


cdef void copy_from_ram(const FrMemory *memory, uint64_t gpa, uint8_t *to, uint64_t length) noexcept nogil:
    """Copy what fr_in_ram has found to be RAM."""
    cdef uint64_t room, step
    cdef void *hva
    while length > 0:
        hva = fr_translate(memory, gpa, &room)
        step = min(room, length)
        memcpy(to, hva, step)
        gpa += step
        to += step
        length -= step


cdef void copy_to_ram(const FrMemory *memory, uint64_t gpa, const uint8_t *data, uint64_t length) noexcept nogil:
    """Copy to what fr_in_ram has found to be RAM; *data* may be guest memory itself and overlap."""
    cdef uint64_t room, step
    cdef void *hva
    while length > 0:
        hva = fr_translate(memory, gpa, &room)
        step = min(room, length)
        memmove(hva, data, step)
        gpa += step
        data += step
        length -= step


cdef const FrRegion *fr_nearest(const FrMemory *memory, uint64_t gpa) noexcept nogil:
    cdef uint32_t low = 0, high = memory.n_regions
    cdef uint32_t middle
    while high - low > 1:
        middle = (low + high) // 2
        if memory.regions[middle].gpa <= gpa:
            low = middle
        else:
            high = middle
    return &memory.regions[low]


cdef uint32_t count_joints(const FrMemory *memory) noexcept nogil:
    cdef uint32_t i, n_joints = 0
    cdef uint64_t end, room
    for i in range(memory.n_regions):
        end = memory.regions[i].gpa + memory.regions[i].size
        n_joints += end != 0 and fr_translate(memory, end, &room) != NULL  # 0: it ends at 2^64, where nothing follows
    return n_joints


cdef void set_spans(FrMemory *memory) noexcept nogil:
    """Of the two largest regions."""
    cdef const FrRegion *first = NULL
    cdef const FrRegion *second = NULL
    cdef uint32_t i
    for i in range(memory.n_regions):
        if first == NULL or memory.regions[i].size > first.size:
            first, second = &memory.regions[i], first
        elif second == NULL or memory.regions[i].size > second.size:
            second = &memory.regions[i]
    if second != NULL and second.gpa < first.gpa:
        first, second = second, first
    if first != NULL:
        set_span(&memory.low, first)
    if second != NULL:
        set_span(&memory.high, second)


cdef void set_span(FrSpan *span, const FrRegion *region) noexcept nogil:
    span.first, span.last = region.gpa, region.gpa + (region.size - 1)
    span.ahead = <uint64_t>region.hva - region.gpa


def _region_bytes(region):
    """Size of a region's buffer."""
    return memoryview(region[1]).nbytes


def _in_order(regions):
    """*regions* as ``FrMemory`` has them."""
    if len(regions) > FR_FEW_REGIONS:
        return sorted(regions, key=itemgetter(0))
    by_size = sorted(regions, key=_region_bytes, reverse=True)  # those looked at first are used most
    return sorted(by_size[:2], key=itemgetter(0)) + by_size[2:]


@cython.final
@cython.no_gc
cdef class MemoryMap:
    """Guest RAM as the rings see it: up to 512 regions, each the gpa of its first byte and a writable buffer of ours.

    Holds an export of every buffer, so that closing a mapping too early raises BufferError instead of leaving a
    dangling pointer. Raises ValueError for too many, empty or overlapping regions.
    """

    def __cinit__(self, regions):
        self.closed = False
        self.memory.low.first = self.memory.high.first = UINT64_MAX
        parts = list(regions)
        if len(parts) > FR_MAX_REGIONS:
            raise ValueError(f"more than {FR_MAX_REGIONS} memory regions")
        self.memory.regions = <FrRegion *>PyMem_Calloc(len(parts) + 1, sizeof(FrRegion))
        self.exports = <Py_buffer *>PyMem_Calloc(len(parts) + 1, sizeof(Py_buffer))
        if self.memory.regions == NULL or self.exports == NULL:
            raise MemoryError()
        for gpa, buffer in _in_order(parts):
            self.add_region(gpa, buffer)
        set_spans(&self.memory)
        self.memory.n_joints = count_joints(&self.memory)

    def __dealloc__(self):
        self.release_exports()
        PyMem_Free(self.memory.regions)
        PyMem_Free(self.exports)

    cdef int add_region(self, object gpa, object buffer) except -1:
        cdef uint32_t i = self.memory.n_regions
        cdef FrRegion *region = &self.memory.regions[i]
        PyObject_GetBuffer(buffer, &self.exports[i], PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.memory.n_regions += 1  # from here on release_exports takes care of it
        region.hva = <uint8_t *>self.exports[i].buf
        region.size = self.exports[i].len
        if region.size == 0 or not 0 <= gpa <= 2**64 - region.size:
            raise ValueError(f"memory region of {region.size:#x} bytes at gpa {gpa:#x}: empty or not within 64 bits")
        region.gpa = gpa
        return self.check_overlap(i)

    cdef int check_overlap(self, uint32_t i) except -1:
        cdef const FrRegion *region = &self.memory.regions[i]
        cdef const FrRegion *other
        for k in range(i):
            # Same wrapping comparison as in fr_translate, from both sides: neither starts within the other.
            other = &self.memory.regions[k]
            if region.gpa - other.gpa < other.size or other.gpa - region.gpa < region.size:
                raise ValueError(f"memory regions at {region.gpa:#x} and {other.gpa:#x} overlap")
        return 0

    cdef void release_exports(self) noexcept:
        while self.memory.n_regions > 0:
            self.memory.n_regions -= 1
            PyBuffer_Release(&self.exports[self.memory.n_regions])

    cdef uint64_t checked(self, object gpa, uint64_t length) except? 0:
        """*gpa* as a C integer, once all of the range is known to be RAM."""
        if self.closed:
            raise ValueError("the memory map is closed")
        if not 0 <= gpa < 2**64 or not fr_in_ram(&self.memory, gpa, length):
            raise GuestError(f"{length:#x} bytes at gpa {gpa:#x} are not all RAM")
        return gpa

    def read(self, gpa, Py_ssize_t length):
        """Copy *length* bytes at *gpa*, across touching regions if need be. Raises GuestError outside RAM."""
        if length < 0:
            raise ValueError(f"length {length} is negative")
        cdef uint64_t start = self.checked(gpa, length)
        cdef bytes data = PyBytes_FromStringAndSize(NULL, length)
        copy_from_ram(&self.memory, start, <uint8_t *>PyBytes_AS_STRING(data), length)
        return data

    def write(self, gpa, data):
        """Copy *data* to *gpa*, across touching regions if need be; all or nothing. Raises GuestError outside RAM."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            copy_to_ram(&self.memory, self.checked(gpa, view.len), <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def close(self):
        """Let go of the buffers; again is harmless. Raises BufferError while a ring or a chain's view uses them."""
        if self.users > 0:
            raise BufferError(f"guest memory is in use by {self.users} rings or views")
        self.closed = True
        self.release_exports()


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class _Window:
    """The exporter behind one memoryview of guest memory; while it lives, the memory map cannot be closed."""

    cdef MemoryMap memory
    cdef void *hva
    cdef Py_ssize_t length
    cdef bint readonly

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.hva, self.length, self.readonly, flags)

    def __dealloc__(self):
        if self.memory is not None:
            self.memory.users -= 1


cdef object new_view(MemoryMap memory, void *hva, size_t length, bint readonly):
    cdef _Window window = _Window.__new__(_Window)
    memory.users += 1
    window.memory = memory
    window.hva = hva
    window.length = length
    window.readonly = readonly
    return PyMemoryView_FromObject(window)
