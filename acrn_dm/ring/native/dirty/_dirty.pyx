# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A ring that marks in a log which pages of guest memory it writes, for a migration (VHOST_F_LOG_ALL): its overlay.

A page is marked when it has been written, and before the driver is shown that it was. A chain's device-writable part
counts as written when the chain is returned, all of it: devices may write more than they say. Of chains that the device
had before there was a log nobody knows where they are; when one of these is returned all pages are marked.
"""

cimport cython
from acrn_dm.ring.native._atomics cimport fr_set_bit
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_gpa_of
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrOverlay
from acrn_dm.ring.native._ring cimport NativeRing
from acrn_dm.ring.native._status cimport FR_OK
from acrn_dm.ring.native._virtqueue cimport (
    vq_disable_kicks, vq_enable_kicks, vq_hold, vq_look, vq_next, vq_pop_batch, vq_publish, vq_push, vq_ring, vq_unpop,
)
from acrn_dm.ring.native.split._layout cimport avail_event, used_element, used_idx
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    PAGE_SHIFT = 12           # VHOST_LOG_PAGE
    N_HEADS = 1 << 16         # names of chains in any ring

cdef struct Stretch:
    uint64_t gpa
    uint64_t length

# The device-writable part of a chain in flight.
cdef struct Writable:
    uint32_t n
    Stretch stretches[1]      # n of them

cdef struct FrDirty:
    FrOverlay overlay         # first: what the ring calls it by
    const FrMemory *memory
    uint8_t *bits             # a bit for each page
    uint64_t n_pages
    uint64_t used             # where the used ring is, or what a packed ring has in its place; UINT64_MAX: not logged
    uint64_t desc             # of a packed ring
    Writable **chains         # by head


cdef void mark(FrDirty *dirty, uint64_t gpa, uint64_t length) noexcept nogil:
    """What lies behind the log's end is nobody's: who made the log has seen to that."""
    cdef uint64_t page = gpa >> PAGE_SHIFT
    cdef uint64_t last = (gpa + length - 1) >> PAGE_SHIFT
    while page <= last and page < dirty.n_pages:
        fr_set_bit(dirty.bits, page)
        page += 1


cdef inline void mark_used(FrDirty *dirty, uint64_t offset, uint64_t length) noexcept nogil:
    if dirty.used != UINT64_MAX:
        mark(dirty, dirty.used + offset, length)


cdef inline void mark_slot(FrDirty *dirty, uint32_t slot) noexcept nogil:
    if dirty.used != UINT64_MAX:
        mark(dirty, dirty.desc + FR_DESC_SIZE * <uint64_t>slot, FR_DESC_SIZE)


cdef Writable *writable_of(const FrMemory *memory, const FrChain *chain) noexcept nogil:
    """NULL where there is no memory for it: then it is as if the chain had been there before."""
    cdef Writable *part = <Writable *>malloc(sizeof(Writable) + chain.n_in * sizeof(Stretch))
    cdef const FrSegment *segment = chain.segments + chain.n_out
    cdef uint32_t i
    if part != NULL:
        part.n = chain.n_in
        for i in range(chain.n_in):
            part.stretches[i].gpa, part.stretches[i].length = fr_gpa_of(memory, segment[i].hva), segment[i].len
    return part


cdef void forget(FrDirty *dirty, uint16_t head) noexcept nogil:
    free(dirty.chains[head])
    dirty.chains[head] = NULL


cdef int pop_batch(FrOverlay *overlay, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef FrDirty *dirty = <FrDirty *>overlay
    cdef int status = vq_pop_batch(&overlay.under, batch, limit)
    cdef uint32_t i
    if status == FR_OK:
        for i in range(batch.n_chains):
            forget(dirty, batch.chains[i].head)
            dirty.chains[batch.chains[i].head] = writable_of(dirty.memory, &batch.chains[i])
    return status


cdef int unpop(FrOverlay *overlay, const FrChain *chain) noexcept nogil:
    return vq_unpop(&overlay.under, chain)


cdef void mark_chain(FrDirty *dirty, uint16_t head) noexcept nogil:
    cdef const Writable *part = dirty.chains[head]
    cdef uint32_t i
    if part == NULL:
        memset(dirty.bits, 0xFF, dirty.n_pages >> 3)
        return
    for i in range(part.n):
        mark(dirty, part.stretches[i].gpa, part.stretches[i].length)
    forget(dirty, head)


cdef int push(FrOverlay *overlay, uint16_t head, uint32_t written) noexcept nogil:
    cdef FrDirty *dirty = <FrDirty *>overlay
    cdef bint packed = overlay.under.packed_ring != NULL
    cdef uint32_t at = overlay.under.packed_ring.next_used if packed else overlay.under.split.next_used
    cdef int status = vq_push(&overlay.under, head, written)
    if status != FR_OK:
        return status
    mark_chain(dirty, head)
    if packed:
        mark_slot(dirty, at)
    else:
        mark_used(dirty, <size_t>used_element(NULL, at & overlay.under.split.mask), 8)
    return FR_OK


cdef bint show(FrOverlay *overlay, bint hold) noexcept nogil:
    cdef FrDirty *dirty = <FrDirty *>overlay
    cdef bint packed = overlay.under.packed_ring != NULL
    cdef uint32_t first = overlay.under.packed_ring.published_used if packed else 0
    cdef bint wanted = vq_hold(&overlay.under) if hold else vq_publish(&overlay.under)
    if packed:
        mark_slot(dirty, first)
    else:
        mark_used(dirty, <size_t>used_idx(NULL), 2)
    return wanted


cdef bint publish(FrOverlay *overlay) noexcept nogil:
    return show(overlay, False)


cdef bint hold(FrOverlay *overlay) noexcept nogil:
    return show(overlay, True)


cdef void mark_wish(FrOverlay *overlay) noexcept nogil:
    """Where the device says of what it wants to be told."""
    mark_used(<FrDirty *>overlay, 0, 4)
    if overlay.under.packed_ring == NULL:
        mark_used(<FrDirty *>overlay, <size_t>avail_event(NULL, overlay.under.split.size), 2)


cdef void disable_kicks(FrOverlay *overlay) noexcept nogil:
    vq_disable_kicks(&overlay.under)
    mark_wish(overlay)


cdef int enable_kicks(FrOverlay *overlay) noexcept nogil:
    cdef int status = vq_enable_kicks(&overlay.under)
    mark_wish(overlay)
    return status


cdef int look(FrOverlay *overlay) noexcept nogil:
    return vq_look(&overlay.under)


cdef uint16_t next_(const FrOverlay *overlay) noexcept nogil:
    return vq_next(&overlay.under)


@cython.final
@cython.no_gc
cdef class DirtyLog:
    """The log of what *ring* writes, in *bits*: one for each page of 4 KiB from guest address 0 on, up to the highest
    that there is; set, and never cleared. *used* and *desc* are the guest addresses of its used ring, or what a packed
    ring has in its place, and of its descriptors; with -1 these are not logged. Made, changed and taken away by
    whoever holds the ring's loop.
    """

    cdef FrDirty dirty
    cdef Py_buffer _view
    cdef bint _open
    cdef public object below  # who has what stands before the ring behind this

    def __cinit__(self, NativeRing ring not None, bits, *, used, desc):
        self.dirty.chains = <Writable **>PyMem_Calloc(N_HEADS, sizeof(Writable *))  # whose pages come with the heads
        if self.dirty.chains == NULL:
            raise MemoryError()
        self.dirty.memory = vq_ring(&ring.queue).memory
        self.dirty.overlay.pop_batch, self.dirty.overlay.unpop, self.dirty.overlay.push = pop_batch, unpop, push
        self.dirty.overlay.publish, self.dirty.overlay.hold = publish, hold
        self.dirty.overlay.disable_kicks, self.dirty.overlay.enable_kicks = disable_kicks, enable_kicks
        self.dirty.overlay.look, self.dirty.overlay.next = look, next_
        self.replace(bits, used=used, desc=desc)

    def __dealloc__(self):
        cdef uint32_t i
        self.close()
        if self.dirty.chains != NULL:
            for i in range(N_HEADS):
                free(self.dirty.chains[i])
        PyMem_Free(self.dirty.chains)

    def replace(self, bits, *, used, desc):
        """Log there from now on."""
        cdef Py_buffer view
        PyObject_GetBuffer(bits, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.close()
        self._view, self._open = view, True
        self.dirty.bits, self.dirty.n_pages = <uint8_t *>view.buf, <uint64_t>view.len << 3
        self.dirty.used = UINT64_MAX if used < 0 else <uint64_t>used
        self.dirty.desc = UINT64_MAX if desc < 0 else <uint64_t>desc

    def close(self):
        """Let go of the log. Idempotent."""
        if self._open:
            self._open = False
            self.dirty.n_pages = 0
            PyBuffer_Release(&self._view)


def log_writes(NativeRing ring not None, bits, *, used, desc):
    """Have *ring* log in *bits* from now on, or in these from now on (see ``DirtyLog``); with None no more."""
    cdef DirtyLog log
    cdef object top = ring.overlay
    if bits is None:
        if isinstance(top, DirtyLog):
            ring.take_off()
    elif isinstance(top, DirtyLog):
        top.replace(bits, used=used, desc=desc)
    else:
        log = DirtyLog(ring, bits, used=used, desc=desc)
        ring.lay(&log.dirty.overlay, log)
