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


cdef const FrOther *fr_other(const FrMemory *memory, uint64_t gpa) noexcept nogil:
    """The last one that does not begin behind *gpa*, if it reaches there."""
    cdef uint32_t first = 0, behind = memory.n_others, middle
    while first < behind:
        middle = (first + behind) // 2
        if memory.others[middle].place.gpa <= gpa:
            first = middle + 1
        else:
            behind = middle
    if first == 0 or gpa - memory.others[first - 1].place.gpa >= memory.others[first - 1].place.size:
        return NULL
    return &memory.others[first - 1]


cdef bint fr_writable(const FrMemory *memory, uint64_t gpa, uint64_t length) noexcept nogil:
    """No part of it is in a region that is only read."""
    cdef const FrOther *other
    cdef uint64_t room
    while length > 0:
        other = fr_other(memory, gpa)
        if other != NULL and other.readonly:
            return False
        if fr_translate(memory, gpa, &room) == NULL:
            return False
        if room >= length:
            return True
        gpa += room
        length -= room
    return True


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


cdef void set_span(FrSpan *span, const FrRegion *region) noexcept nogil:
    span.first, span.last = region.gpa, region.gpa + (region.size - 1)
    span.ahead = <uint64_t>region.hva - region.gpa


def _region_bytes(region):
    """Size of a region's buffer."""
    return memoryview(region[1]).nbytes


@cython.final
@cython.no_gc
cdef class MemoryMap:
    """Guest RAM as the rings see it: *regions*, each the gpa of its first byte and a writable buffer of ours, and those
    that a device may only read, *readable*, whose buffers may be read-only.

    Holds an export of every buffer, so that closing a mapping too early raises BufferError instead of leaving a
    dangling pointer. Raises ValueError for empty or overlapping regions, and for more than 65536. Eight are found at
    once, the largest of *regions*; the others by bisection.
    """

    def __cinit__(self, regions, *, readable=()):
        self.closed = False
        by_size = sorted(regions, key=_region_bytes, reverse=True)  # those looked at first are used most
        first = sorted(by_size[:2], key=itemgetter(0)) + by_size[2:FR_MAX_REGIONS]
        others = [(gpa, buffer, False) for gpa, buffer in by_size[FR_MAX_REGIONS:]]
        others += [(gpa, buffer, True) for gpa, buffer in readable]
        if len(others) > FR_MAX_OTHERS:
            raise ValueError(f"more than {FR_MAX_OTHERS} memory regions")
        self.make_room(len(first), len(others))
        self.memory.low.first = self.memory.high.first = UINT64_MAX
        for gpa, buffer in first:
            self.export(&self.memory.regions[self.memory.n_regions], gpa, buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.memory.n_regions += 1
        self.add_others(sorted(others, key=itemgetter(0)))
        self.refuse_overlaps()
        if self.memory.n_regions > 0:
            set_span(&self.memory.low, &self.memory.regions[0])
        if self.memory.n_regions > 1:
            set_span(&self.memory.high, &self.memory.regions[1])

    def __dealloc__(self):
        self.release_exports()
        PyMem_Free(self.exports)
        PyMem_Free(self.memory.others)

    cdef int make_room(self, Py_ssize_t n_regions, Py_ssize_t n_others) except -1:
        self.exports = <Py_buffer *>PyMem_Calloc(n_regions + n_others, sizeof(Py_buffer))
        self.memory.others = <FrOther *>PyMem_Calloc(n_others, sizeof(FrOther))
        if self.exports == NULL or self.memory.others == NULL:
            raise MemoryError()
        return 0

    cdef int export(self, FrRegion *region, object gpa, object buffer, int flags) except -1:
        """Fill in *region*."""
        cdef Py_buffer *held = &self.exports[self.n_exports]
        PyObject_GetBuffer(buffer, held, flags)
        self.n_exports += 1  # from here on release_exports takes care of it
        region.hva = <uint8_t *>held.buf
        region.size = held.len
        if region.size == 0 or not 0 <= gpa <= 2**64 - region.size:
            raise ValueError(f"memory region of {region.size:#x} bytes at gpa {gpa:#x}: empty or not within 64 bits")
        region.gpa = gpa
        return 0

    cdef int add_others(self, list others) except -1:
        """*others* are sorted by gpa."""
        cdef FrOther *other
        for gpa, buffer, readonly in others:
            other = &self.memory.others[self.memory.n_others]
            other.readonly = readonly
            self.export(&other.place, gpa, buffer, PyBUF_SIMPLE if readonly else PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.memory.n_readonly += other.readonly
            self.memory.n_others += 1
        return 0

    cdef int refuse_overlaps(self) except -1:
        """Count the joints on the way: in the order of addresses only neighbours can overlap, or touch."""
        cdef uint32_t i
        cdef list places = []
        for i in range(self.memory.n_regions):
            places.append((self.memory.regions[i].gpa, self.memory.regions[i].size))
        for i in range(self.memory.n_others):
            places.append((self.memory.others[i].place.gpa, self.memory.others[i].place.size))
        places.sort()
        for (gpa, size), (other, _) in zip(places, places[1:], strict=False):
            if gpa + size > other:
                raise ValueError(f"memory regions at {gpa:#x} and {other:#x} overlap")
            self.memory.n_joints += gpa + size == other
        return 0

    cdef void release_exports(self) noexcept:
        self.memory.n_regions = self.memory.n_others = 0
        while self.n_exports > 0:
            self.n_exports -= 1
            PyBuffer_Release(&self.exports[self.n_exports])

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
        """Copy *data* to *gpa*, across touching regions if need be; all or nothing. Raises GuestError outside RAM, and
        for what is only read.
        """
        cdef Py_buffer view
        cdef uint64_t start
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            start = self.checked(gpa, view.len)
            if self.memory.n_readonly != 0 and not fr_writable(&self.memory, start, view.len):
                raise GuestError(f"{view.len:#x} bytes at gpa {gpa:#x} are not all writable")
            copy_to_ram(&self.memory, start, <const uint8_t *>view.buf, view.len)
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
