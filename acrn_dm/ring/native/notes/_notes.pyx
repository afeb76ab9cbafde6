# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A ring that notes in C what is in flight, and first gives what the last process left: the overlay for that."""

cimport cython
from acrn_dm.ring.native._atomics cimport fr_store_u16, fr_store_u32, fr_store_u64
from acrn_dm.ring.native._buffers cimport FR_DESC_F_NEXT, FR_DESC_SIZE
from acrn_dm.ring.native._records cimport FR_PACKED, FrBatch, FrChain, FrOverlay, FrPacked, FrRing
from acrn_dm.ring.native._ring cimport NativeRing
from acrn_dm.ring.native._status cimport FR_E_ROOM, FR_OK
from acrn_dm.ring.native._virtqueue cimport (
    vq_disable_kicks, vq_enable_kicks, vq_hold, vq_look, vq_next, vq_pop_batch, vq_publish, vq_push, vq_ring, vq_unpop,
)
from acrn_dm.ring.native.notes._packed cimport fnp_pushed, fnp_show, fnp_shown, fnp_took, fnp_untook
from acrn_dm.ring.native.notes._records cimport FrNotes
from acrn_dm.ring.native.notes._split cimport fns_pushed, fns_shown, fns_took, fns_untook
from acrn_dm.ring.native.packed._layout cimport (
    FR_DESC_F_USED, FR_MARKS, FR_N_IDS, FR_WRAP_SHIFT, desc_flags, desc_id, desc_len,
)
from acrn_dm.ring.native.packed._packed cimport fp_begin, fp_next_used
from acrn_dm.ring.native.split._layout cimport avail_entry
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef int take_again(FrNotes *notes, FrBatch *batch, uint32_t limit) noexcept nogil:
    """What the last process left; what is wrong with that breaks the ring."""
    cdef FrRing *ring = vq_ring(&notes.overlay.under)
    cdef FrRing *again = vq_ring(&notes.again)
    cdef int status = vq_pop_batch(&notes.again, batch, min(limit, notes.n_again))
    if status == FR_OK:
        notes.n_again -= batch.n_chains
    elif status != FR_E_ROOM:
        ring.status, ring.fault_index, ring.fault_value = again.status, again.fault_index, again.fault_value
    return status


cdef int pop_batch(FrOverlay *overlay, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef FrNotes *notes = <FrNotes *>overlay
    cdef uint32_t i
    cdef int status = vq_ring(&overlay.under).status
    if notes.n_again != 0 and status == FR_OK:
        return take_again(notes, batch, limit)
    status = vq_pop_batch(&overlay.under, batch, limit)
    if status != FR_OK:
        return status
    notes.n_taken += batch.n_chains
    for i in range(batch.n_chains):
        if overlay.under.kind == FR_PACKED:
            fnp_took(notes, &batch.chains[i])
        else:
            fns_took(notes, &batch.chains[i])
    return FR_OK


cdef int unpop(FrOverlay *overlay, const FrChain *chain) noexcept nogil:
    cdef FrNotes *notes = <FrNotes *>overlay
    cdef bint own = notes.n_taken != 0
    cdef int status = vq_unpop(&overlay.under if own else &notes.again, chain)
    if status != FR_OK:
        return status
    if not own:  # it stays noted
        notes.n_again += 1
        return FR_OK
    notes.n_taken -= 1
    if overlay.under.kind == FR_PACKED:
        fnp_untook(notes, chain)
    else:
        fns_untook(notes, chain)
    return FR_OK


cdef int push(FrOverlay *overlay, uint16_t head, uint32_t written) noexcept nogil:
    cdef int status = vq_push(&overlay.under, head, written)
    if status != FR_OK:
        return status
    if overlay.under.kind == FR_PACKED:
        fnp_pushed(<FrNotes *>overlay, head)
    else:
        fns_pushed(<FrNotes *>overlay, head)
    return FR_OK


cdef bint show(FrOverlay *overlay, bint hold) noexcept nogil:
    """Show the driver what was pushed, between what is noted before and after that."""
    cdef FrNotes *notes = <FrNotes *>overlay
    cdef bint any = notes.n_pushed != 0
    cdef bint wanted
    if any and overlay.under.kind == FR_PACKED:
        fnp_show(notes)
    wanted = vq_hold(&overlay.under) if hold else vq_publish(&overlay.under)
    if any and overlay.under.kind == FR_PACKED:
        fnp_shown(notes)
    elif any:
        fns_shown(notes)
    return wanted


cdef bint publish(FrOverlay *overlay) noexcept nogil:
    return show(overlay, False)


cdef bint hold(FrOverlay *overlay) noexcept nogil:
    return show(overlay, True)


cdef void disable_kicks(FrOverlay *overlay) noexcept nogil:
    vq_disable_kicks(&overlay.under)


cdef int enable_kicks(FrOverlay *overlay) noexcept nogil:
    return vq_enable_kicks(&overlay.under)


cdef int look(FrOverlay *overlay) noexcept nogil:
    cdef int status = vq_ring(&overlay.under).status
    if status == FR_OK and (<FrNotes *>overlay).n_again != 0:
        return FR_OK
    return vq_look(&overlay.under)


cdef uint16_t next_(const FrOverlay *overlay) noexcept nogil:
    cdef const FrNotes *notes = <const FrNotes *>overlay
    return vq_next(&notes.again if notes.n_again != 0 else &overlay.under)


@cython.no_gc
cdef class RingNotes:
    """Notes of what is in flight in a ring, in the part *region* of memory that others have, too. It begins as the last
    process left it and has been set right (``split``, ``packed`` of this package); *counter* is the number of the next
    chain.
    """

    cdef FrNotes notes
    cdef public object below  # who has what stands before the ring behind this
    cdef Py_buffer _view
    cdef bint _open

    def __cinit__(self, NativeRing ring not None, region, *, uint64_t counter, **rest):
        PyObject_GetBuffer(region, &self._view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self._open = True
        self.notes.region = <uint8_t *>self._view.buf
        self.notes.counter = counter
        self.notes.overlay.pop_batch, self.notes.overlay.unpop, self.notes.overlay.push = pop_batch, unpop, push
        self.notes.overlay.publish, self.notes.overlay.hold = publish, hold
        self.notes.overlay.disable_kicks, self.notes.overlay.enable_kicks = disable_kicks, enable_kicks
        self.notes.overlay.look, self.notes.overlay.next = look, next_
        self.notes.pushed = <uint16_t *>self.room(vq_ring(&ring.queue).size, sizeof(uint16_t))

    def __dealloc__(self):
        self.close()
        PyMem_Free(self.notes.pushed)
        PyMem_Free(self.notes.is_pushed)
        PyMem_Free(self.notes.next)
        PyMem_Free(self.notes.last)
        PyMem_Free(self.notes.entry_of)
        PyMem_Free(<void *>self.notes.split_again.avail)
        PyMem_Free(<void *>self.notes.packed_again.ring.desc)

    def close(self):
        """Let go of the memory. Idempotent."""
        if self._open:
            self._open = False
            PyBuffer_Release(&self._view)

    cdef void *room(self, size_t n, size_t size) except NULL:
        cdef void *memory = PyMem_Calloc(n, size)
        if memory == NULL:
            raise MemoryError()
        return memory


@cython.final
@cython.no_gc
cdef class SplitNotes(RingNotes):
    """Notes of a split *ring*, which begins at the driver's used index. *again*: heads of the chains that are in flight
    already, in the order in which they are to be taken.
    """

    def __init__(self, NativeRing ring not None, region, *, uint64_t counter, again):
        cdef FrRing *own = ring.queue.split
        cdef FrRing *left = &self.notes.split_again
        cdef uint16_t index = own.next_avail
        self.notes.is_pushed = <uint8_t *>self.room(own.size, 1)
        left[0] = own[0]
        left.avail = NULL
        left.avail = <const uint8_t *>self.room(4 + 2 * <size_t>own.size, 1)
        self.notes.again.split = left
        self.notes.n_again = len(again)
        for head in again:
            fr_store_u16(<uint8_t *>avail_entry(left.avail, index & own.mask), head)
            index += 1
        left.seen_avail = own.next_avail = own.seen_avail = index
        ring.lay(&self.notes.overlay, self)


@cython.final
@cython.no_gc
cdef class PackedNotes(RingNotes):
    """Notes of a packed *ring*, which begins where the driver was last shown something, in a part that has room for as
    many descriptors as there are in *links*. These are the free ones' list, from *free_head* on, and those of the
    chains in *again*, which are in flight already: for each its first and last entry, its buffer id, and (gpa, length,
    flags, id) of its descriptors.
    """

    def __init__(self, NativeRing ring not None, region, *, uint64_t counter, links, uint16_t free_head, again):
        cdef FrPacked *own = ring.queue.packed_ring
        cdef FrPacked *left = &self.notes.packed_again
        cdef uint32_t n_entries = len(links)
        cdef uint32_t i, n = 0
        cdef uint32_t used = fp_next_used(own)
        self.notes.next = <uint16_t *>self.room(n_entries, sizeof(uint16_t))
        self.notes.last = <uint16_t *>self.room(n_entries, sizeof(uint16_t))
        self.notes.entry_of = <uint16_t *>self.room(FR_N_IDS, sizeof(uint16_t))
        self.notes.free_head = free_head
        for i in range(n_entries):
            self.notes.next[i] = links[i]
        left[0] = own[0]
        left.ring.desc = NULL
        left.ring.desc = <const uint8_t *>self.room(own.ring.size, FR_DESC_SIZE)
        self.notes.again.kind, self.notes.again.packed_ring = FR_PACKED, left
        self.notes.n_again = len(again)
        for first, last, id_, descriptors in again:
            self.notes.last[<uint16_t>first] = last
            self.notes.entry_of[<uint16_t>id_] = first
            n += self.enter(used, n, descriptors)
        fp_begin(own, <uint16_t>position_after(used, n, own.ring.size), <uint16_t>used)
        self.notes.shown = (used & 0x7FFF) << 16 | <uint64_t>(used >> FR_WRAP_SHIFT) << 40
        ring.lay(&self.notes.overlay, self)

    cdef uint32_t enter(self, uint32_t used, uint32_t before, list descriptors) except? 0:
        """Make the chain of *descriptors* available behind *before* others; how many it has."""
        cdef FrRing *ring = &self.notes.packed_again.ring
        cdef uint32_t at, i, n = len(descriptors)
        cdef uint8_t *descriptor
        for i in range(n):
            gpa, length, flags, id_ = descriptors[i]
            at = position_after(used, before + i, ring.size)
            descriptor = <uint8_t *>ring.desc + FR_DESC_SIZE * <size_t>(at & 0x7FFF)
            flags = flags & ~(FR_MARKS | FR_DESC_F_NEXT) | (FR_DESC_F_NEXT if i + 1 < n else 0)
            flags |= FR_MARKS ^ FR_DESC_F_USED if at >> FR_WRAP_SHIFT else FR_DESC_F_USED
            fr_store_u64(descriptor, gpa)
            fr_store_u32(desc_len(descriptor), length)
            fr_store_u16(desc_id(descriptor), id_)
            fr_store_u16(desc_flags(descriptor), flags)
        return n


cdef inline uint32_t position_after(uint32_t position, uint32_t n, uint32_t size) noexcept nogil:
    """The position *n* descriptors, at most *size*, behind *position*."""
    cdef uint32_t slot = (position & 0x7FFF) + n
    cdef uint32_t wrap = position & 0x8000
    return slot | wrap if slot < size else (slot - size) | (wrap ^ 0x8000)
