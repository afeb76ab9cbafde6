# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The tally of a split ring that others serve (virtio 1.4, 2.7): which chains are in flight, and in which order they
came, found out by looks at the ring.

Both indices are read as they were at one moment, so what the used one counts has been made available. A head's entries
take turns, available and used, so how often each was seen says whether it is in flight now. An entry is good if it
can't have been written over before it was read: either it is not returned yet, or the index has come three quarters of
a ring further at most, as no driver enters more than a fourth before it shows that (Linux's shows each chain). Where
entries passed unseen the tally is *unsure*, and learns of each head anew: it is sure again when it knows of as many in
flight as the indices say there are. Both rings may hold anything; what contradicts itself is as what passed unseen.
"""

cimport cython
from acrn_dm.ring.native._atomics cimport fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_store_u16
from acrn_dm.ring.native._memory cimport MemoryMap, fr_translate
from acrn_dm.ring.native._records cimport FrChain
from acrn_dm.ring.native.notes._records cimport FrNotes
from acrn_dm.ring.native.notes._split cimport fns_took
from acrn_dm.ring.native.split._layout cimport (
    FR_USED_F_NO_NOTIFY, avail_entry, avail_event, avail_idx, used_element, used_flags, used_idx,
)
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import avail_bytes, is_queue_size, used_bytes

cdef enum:                    # of the notes of a split ring (notes/_split.pxd)
    FR_NOTES_HEADER = 16
    FR_NOTES_STATE = 16
    FR_NOTES_VERSION = 1

cdef enum:
    SNAPSHOTS = 16            # tries to have both indices as they were at one moment


cdef inline uint32_t between(uint16_t first, uint16_t last) noexcept nogil:
    """How far an index has gone, modulo 2^16."""
    return <uint16_t>(last - first)


cdef inline uint16_t load_used(const FrTally *tally) noexcept nogil:
    return fr_load_acquire_u16(used_idx(<uint8_t *>tally.used))


cdef inline uint16_t load_avail(const FrTally *tally) noexcept nogil:
    return fr_load_acquire_u16(avail_idx(tally.avail))


cdef bint load_indices(const FrTally *tally, uint16_t *used, uint16_t *avail) noexcept nogil:
    """Both as they were at one moment: a head that comes back behind the used index that was read may be available
    again before the other one is. False where the ring does not stand still for so long.
    """
    cdef int _try
    for _try in range(SNAPSHOTS):
        used[0] = load_used(tally)
        avail[0] = load_avail(tally)
        if load_used(tally) == used[0]:
            return True
    return False


cdef void lose_sight(FrTally *tally, uint32_t out) noexcept nogil:
    """*out* chains are in flight; which, only their number tells: if there are none."""
    cdef uint32_t i
    tally.n_lost += 1
    tally.n_out = 0
    tally.sure = out == 0
    for i in range(tally.size):
        tally.heads[i].balance = 0
        tally.heads[i].state = FR_TALLY_IDLE if out == 0 else FR_TALLY_UNKNOWN


cdef bint read_entries(FrTally *tally, uint32_t n_avail, uint32_t n_used) noexcept nogil:
    """Read the heads that came; false for one there can't be, and where one may have been written over meanwhile."""
    cdef uint32_t i, head, mask = tally.size - 1
    cdef uint32_t moved, out
    cdef uint16_t used, avail
    for i in range(n_avail):
        head = fr_load_u16(avail_entry(tally.avail, (tally.next_avail + i) & mask))
        if head >= tally.size:
            return False
        tally.seen[i] = head
    for i in range(n_used):
        head = fr_load_u32(used_element(<uint8_t *>tally.used, (tally.next_used + i) & mask))
        if head >= tally.size:
            return False
        tally.seen[n_avail + i] = head
    fr_full_fence()  # the indices are read after the entries
    used = load_used(tally)
    avail = load_avail(tally)
    out = between(used, avail)
    moved = between(tally.next_avail, avail)
    if n_avail > 0 and moved > tally.size - tally.size // 4 and (out > tally.size or moved > out):
        return False
    # A device writes no more elements ahead of its index than there are chains in flight.
    moved = between(tally.next_used, used)
    return n_used == 0 or moved <= tally.size // 2 or between(tally.next_used, avail) <= tally.size


cdef bint settle(FrTally *tally, FrTallyHead *head) noexcept nogil:
    """Conclude from what came of *head*; false where that can't be."""
    cdef int32_t balance = head.balance
    head.balance = 0
    if balance == 0:
        return True
    if balance == 1 and head.state != FR_TALLY_OUT:
        head.state = FR_TALLY_OUT
        tally.n_out += 1
        return True
    if balance == -1 and head.state != FR_TALLY_IDLE:
        tally.n_out -= head.state == FR_TALLY_OUT
        head.state = FR_TALLY_IDLE
        return True
    return False


cdef bint count_entries(FrTally *tally, uint32_t n_avail, uint32_t n_used, uint32_t out) noexcept nogil:
    """Take what was read into account; false where it contradicts what is known, or that *out* are in flight."""
    cdef uint32_t i
    for i in range(n_avail):
        tally.heads[tally.seen[i]].balance += 1
        tally.heads[tally.seen[i]].entry = tally.n_entries
        tally.n_entries += 1
    for i in range(n_avail, n_avail + n_used):
        tally.heads[tally.seen[i]].balance -= 1
    for i in range(n_avail + n_used):
        if not settle(tally, &tally.heads[tally.seen[i]]):
            return False
    if tally.sure or tally.n_out > out:
        return tally.n_out == out
    if tally.n_out == out:  # so all others are not
        tally.sure = True
        for i in range(tally.size):
            if tally.heads[i].state == FR_TALLY_UNKNOWN:
                tally.heads[i].state = FR_TALLY_IDLE
    return True


cdef uint32_t ft_sample(FrTally *tally, bint late) noexcept nogil:
    cdef uint16_t used, avail
    cdef bint still = load_indices(tally, &used, &avail)
    cdef uint32_t n_used = between(tally.next_used, used)
    cdef uint32_t n_avail = between(tally.next_avail, avail)
    cdef uint32_t out = between(used, avail)
    cdef bint good
    if not still:
        return max(n_used, n_avail)
    if n_used == 0 and n_avail == 0:
        return 0
    # Nothing goes round without both: what is in flight may come back at any time.
    good = max(out, n_used, n_avail) <= tally.size and not (late and n_used > 0 and n_avail > 0)
    good = good and read_entries(tally, n_avail, n_used) and count_entries(tally, n_avail, n_used, out)
    tally.next_used, tally.next_avail = used, avail
    if not good:
        lose_sight(tally, out)
    return max(n_used, n_avail)


cdef bint ft_wants_kick(const FrTally *tally) noexcept nogil:
    if tally.event_idx:
        return fr_load_u16(avail_event(<uint8_t *>tally.used, tally.size)) == load_avail(tally)
    return not fr_load_u16(used_flags(<uint8_t *>tally.used)) & FR_USED_F_NO_NOTIFY


cdef const uint8_t *place(MemoryMap memory, uint64_t gpa, uint64_t length) except NULL:
    cdef uint64_t room
    cdef void *hva = fr_translate(&memory.memory, gpa, &room)
    if memory.closed or hva == NULL or room < length or gpa % 2:
        raise GuestError(f"a ring of {length:#x} bytes at gpa {gpa:#x} is not within one region of RAM, or not aligned")
    return <uint8_t *>hva


@cython.final
@cython.no_gc
cdef class RingTally:
    """The tally of a ring of *size* entries, whose next available entry is the one at index *position*. Raises
    GuestError for a ring outside RAM.
    """

    def __cinit__(
        self, MemoryMap memory not None, *, uint32_t size, avail, used, bint event_idx=False, uint16_t position=0
    ):
        cdef FrTally *tally = &self.tally
        if not is_queue_size(size):
            raise GuestError(f"a split ring of {size} entries")
        tally.avail = place(memory, avail, avail_bytes(size))
        tally.used = place(memory, used, used_bytes(size))
        tally.size, tally.event_idx = size, event_idx
        tally.heads = <FrTallyHead *>PyMem_Calloc(size, sizeof(FrTallyHead))
        tally.seen = <uint16_t *>PyMem_Calloc(2 * <size_t>size, sizeof(uint16_t))
        if tally.heads == NULL or tally.seen == NULL:
            raise MemoryError()
        tally.next_used, tally.next_avail = load_used(tally), position
        lose_sight(tally, between(tally.next_used, position))
        tally.n_lost = 0
        memory.users += 1
        self.memory = memory

    def __dealloc__(self):
        self.close()
        PyMem_Free(self.tally.heads)
        PyMem_Free(self.tally.seen)

    @property
    def size(self):
        """Entries of the ring."""
        return self.tally.size

    @property
    def sure(self):
        """Whether it is known which chains are in flight."""
        return self.tally.sure

    @property
    def lost(self):
        """How often entries passed unseen, or said what can't be."""
        return self.tally.n_lost

    @property
    def used(self):
        """The used index at the last look."""
        return self.tally.next_used

    def sample(self, late=False):
        """Look at the ring, which nobody else may do meanwhile; see ``ft_sample``."""
        if self.memory is None:
            raise ValueError("the tally is closed")
        return ft_sample(&self.tally, late)

    def in_flight(self):
        """The heads in flight at the last look, in the order in which they were made available. Raises ValueError where
        nobody knows.
        """
        cdef uint32_t i
        if not self.tally.sure:
            raise ValueError("entries passed unseen")
        out = [(self.tally.heads[i].entry, i) for i in range(self.tally.size) if
               self.tally.heads[i].state == FR_TALLY_OUT]
        return [head for _, head in sorted(out)]

    def in_order(self):
        """Whether what is in flight is all that is available behind the used index. Raises ValueError as
        ``in_flight``.
        """
        cdef uint16_t index = self.tally.next_used
        if self.memory is None:
            raise ValueError("the tally is closed")
        for head in self.in_flight():
            if fr_load_u16(avail_entry(self.tally.avail, index & (self.tally.size - 1))) != head:
                return False
            index += 1
        return True

    def notes(self):
        """The notes that a process would have left in which these are in flight. Raises ValueError as ``in_flight``."""
        cdef FrNotes notes
        cdef FrChain chain
        part = bytearray(FR_NOTES_HEADER + FR_NOTES_STATE * self.tally.size)
        notes.region, notes.counter = <uint8_t *>PyByteArray_AS_STRING(part), 0
        fr_store_u16(notes.region + 8, FR_NOTES_VERSION)
        fr_store_u16(notes.region + 10, self.tally.size)
        fr_store_u16(notes.region + 14, self.tally.next_used)
        for head in self.in_flight():
            chain.head = head
            fns_took(&notes, &chain)
        return memoryview(part)

    def close(self):
        """Let go of the memory. Idempotent."""
        if self.memory is not None:
            self.memory.users -= 1
            self.memory = None
