# Take chains of a packed ring, inlined into whoever takes them: what chains are as a rule (each buffer in one region,
# and so an indirect table, if there is one) is walked here, with no more instructions than that needs, and no more
# stores: the fence that ends a batch waits for all of them. At the first thing else ``fp_pop_rest`` takes over where
# this has come to, so here, too, each field is loaded once.

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u64, fr_load_u64, fr_store_u32_pair, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_whole
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrPackedWalk
from acrn_dm.ring.native._status cimport FR_E_ID_IN_FLIGHT, FR_E_TOTAL, FR_EMPTY, FR_OK
from acrn_dm.ring.native.packed._layout cimport FR_DESC_F_AVAIL, FR_MARKS, desc_word, flags_of, id_of, len_of
from acrn_dm.ring.native.packed._packed cimport fp_pop_rest
from acrn_dm.ring.native.packed._position cimport (
    FP_AT_ENTRY, FP_AT_SLOT, FP_BEFORE_CHAIN, FP_BEFORE_SLOT, fp_same_lap, fp_unsee,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT_SHIFT = 4            # FR_DESC_SIZE
    # Flags of the ring's descriptors that say how a list goes on; the others are NEXT, and reserved ones.
    JUDGED = FR_MARKS | FR_DESC_F_INDIRECT | FR_DESC_F_WRITE

# How far a batch has come.
cdef struct Place:
    const uint8_t *at         # the next descriptor of the ring
    const uint8_t *edge       # up to where descriptors may be taken without a turn: the end of the ring, or before it
    uint32_t marks            # of what is available at *at*
    uint32_t position         # of *at*, as FrChain has it, in the lower half


cdef inline uint32_t slot_of(const FrPacked *packed, const Place *place) noexcept nogil:
    return <uint32_t>(<uint64_t>(place.at - packed.ring.desc) >> SLOT_SHIFT)


cdef inline uint32_t wrap_of(uint32_t marks) noexcept nogil:
    """The wrap counter of positions where *marks* say that a descriptor is available: AVAIL, as bit 15."""
    return (marks & FR_DESC_F_AVAIL) << 8


cdef inline bint turn(const FrPacked *packed, Place *place, uint32_t n) noexcept nogil:
    """From the edge, where that is the end of the ring, to its begin; false where nothing more may be taken: all that
    is there is in flight or not shown as used. *n* descriptors of a chain are passed, and not in the position yet.
    """
    if not fp_same_lap(packed) or place.marks != packed.avail_marks or packed.published_used == 0:
        return False
    place.at = packed.ring.desc
    place.edge = place.at + FR_DESC_SIZE * <size_t>packed.published_used
    place.marks ^= FR_MARKS
    place.position = wrap_of(place.marks) - n
    return True


cdef inline bint add(const FrMemory *memory, FrPackedWalk *walk, uint64_t *total) noexcept nogil:
    """Append the loaded buffer's segment; false where it does not lie in one region, or is empty."""
    if fr_unlikely(not fr_whole(memory, walk.addr, len_of(walk.word), &walk.segment.hva)):
        return False
    walk.segment.len = len_of(walk.word)
    walk.segment += 1
    total[0] += len_of(walk.word)
    return True


cdef inline int leave(FrPackedWalk *walk, const FrChain *chain, int status) noexcept nogil:
    """*status*, where all segments so far are device-readable."""
    walk.n_out = <uint32_t>(walk.segment - chain.segments)
    return status


cdef inline int take_length(uint32_t *length, uint64_t total, uint32_t value) noexcept nogil:
    """Set the *length* of a chain's buffer id, where nothing speaks against it: FR_OK, or what does."""
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(length[0] != 0):
        return FR_E_ID_IN_FLIGHT
    if fr_unlikely(total >> 32 != 0):  # a used descriptor's len has 32 bits
        return FR_E_TOTAL
    length[0] = value
    return FR_OK


cdef inline int finish_readable(
    uint32_t *length, FrChain *chain, FrPackedWalk *walk, uint64_t total, uint32_t n,
) noexcept nogil:
    """The chain of *n* descriptors of the ring was walked to its end; *length* is that of its buffer id."""
    cdef int status = take_length(length, total, n)
    if fr_unlikely(status != FR_OK):
        return leave(walk, chain, status)
    fr_store_u32_pair(&chain.n_out, <uint32_t>(walk.segment - chain.segments), 0)
    fr_store_u32_pair(&chain.out_bytes, <uint32_t>total, 0)
    return FR_OK


cdef inline int finish_writable(
    uint32_t *length, FrChain *chain, FrPackedWalk *walk, uint64_t out_bytes, uint64_t total, uint32_t n,
) noexcept nogil:
    """The same with a device-writable part."""
    cdef int status = take_length(length, total, n | <uint32_t>FR_DESC_F_WRITE << 16)
    if fr_unlikely(status != FR_OK):
        return status
    chain.n_out, chain.out_bytes = walk.n_out, <uint32_t>out_bytes
    chain.n_in = <uint32_t>(walk.segment - chain.segments) - walk.n_out
    chain.in_bytes = <uint32_t>(total - out_bytes)
    return FR_OK


cdef inline bint behind(
    FrPacked *packed, const FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """Load the descriptor behind one with NEXT; false where there is none, or no room for a segment."""
    if fr_unlikely(walk.segment == end):
        return False
    if fr_unlikely(place.at == place.edge and not turn(packed, place, <uint32_t>(walk.segment - chain.segments))):
        return False
    # What NEXT leads to was made available before the first one was (2.8.6), so it needs no fence; its marks are
    # judged all the same, for a device uses no descriptor whose AVAIL has not changed (2.8.14).
    walk.word = fr_load_u64(desc_word(place.at))
    walk.addr = fr_load_u64(place.at)
    return True


cdef inline int pass_writable(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
    uint64_t out_bytes,
) noexcept nogil:
    """The rest of a list whose device-readable part is done."""
    cdef uint64_t total = out_bytes
    cdef uint32_t n
    walk.n_out = <uint32_t>(walk.segment - chain.segments)
    while True:
        if fr_unlikely(flags_of(walk.word) & JUDGED != place.marks | FR_DESC_F_WRITE):
            return FP_AT_SLOT
        if fr_unlikely(not add(memory, walk, &total)):
            return FP_AT_SLOT
        place.at += FR_DESC_SIZE
        if not flags_of(walk.word) & FR_DESC_F_NEXT:
            break
        if fr_unlikely(not behind(packed, chain, place, walk, end)):
            return FP_BEFORE_SLOT
    n = <uint32_t>(walk.segment - chain.segments)
    place.position += n
    chain.head = id_of(walk.word)  # the buffer id is that of the last one (2.8.6)
    return finish_writable(&packed.lengths[id_of(walk.word)], chain, walk, out_bytes, total, n)


cdef inline int pass_list(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """The chain from its first descriptor on, which is loaded."""
    cdef uint64_t total = 0
    cdef uint32_t n
    while flags_of(walk.word) & JUDGED == place.marks:
        if fr_unlikely(not add(memory, walk, &total)):
            return leave(walk, chain, FP_AT_SLOT)
        place.at += FR_DESC_SIZE
        if not flags_of(walk.word) & FR_DESC_F_NEXT:
            n = <uint32_t>(walk.segment - chain.segments)
            place.position += n
            chain.head = id_of(walk.word)
            return finish_readable(&packed.lengths[id_of(walk.word)], chain, walk, total, n)
        if fr_unlikely(not behind(packed, chain, place, walk, end)):
            return leave(walk, chain, FP_BEFORE_SLOT)
    return pass_writable(packed, memory, chain, place, walk, end, total)


cdef inline bint enters(const FrPacked *packed, const FrPackedWalk *walk, const FrSegment *end) noexcept nogil:
    """Whether the table that the loaded descriptor refers to may be walked here, but for where it lies."""
    cdef uint32_t length = len_of(walk.word)
    if fr_unlikely(not packed.ring.indirect or flags_of(walk.word) & FR_DESC_F_NEXT):
        return False
    if fr_unlikely(length & (FR_DESC_SIZE - 1) != 0 or length > packed.ring.max_descriptors * FR_DESC_SIZE):
        return False
    return length <= <size_t>end - <size_t>walk.segment  # a segment is as long as an entry


cdef inline int leave_table(FrPackedWalk *walk, const void *table, const uint8_t *stop) noexcept nogil:
    """... at the entry that is loaded."""
    walk.table = <const uint8_t *>table
    walk.n_entries = <uint32_t>(<uint64_t>(stop - walk.table) >> SLOT_SHIFT)
    return FP_AT_ENTRY


cdef inline int pass_writable_entries(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk, const void *table,
    const uint8_t *entry, const uint8_t *stop, uint64_t out_bytes,
) noexcept nogil:
    """The rest of a table whose device-readable part is done, from *entry* on, which is loaded."""
    cdef uint64_t total = out_bytes
    walk.n_out = <uint32_t>(walk.segment - chain.segments)
    while True:
        if fr_unlikely(not flags_of(walk.word) & FR_DESC_F_WRITE or not add(memory, walk, &total)):
            return leave_table(walk, table, stop)
        entry += FR_DESC_SIZE
        if entry == stop:
            return finish_writable(&packed.lengths[chain.head], chain, walk, out_bytes, total, 1)
        walk.addr = fr_load_u64(entry)
        walk.word = fr_load_u64(desc_word(entry))


cdef inline int pass_entries(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk, const void *table,
    const uint8_t *stop,
) noexcept nogil:
    """The chain in the table that ends at *stop*; of a table each entry is passed once (2.8.7)."""
    cdef uint64_t total = 0
    cdef const uint8_t *entry = <const uint8_t *>table
    while True:
        walk.addr = fr_load_u64(entry)
        walk.word = fr_load_u64(desc_word(entry))
        if flags_of(walk.word) & FR_DESC_F_WRITE:
            return pass_writable_entries(packed, memory, chain, walk, table, entry, stop, total)
        if fr_unlikely(not add(memory, walk, &total)):
            return leave(walk, chain, leave_table(walk, table, stop))
        entry += FR_DESC_SIZE
        if entry == stop:
            return finish_readable(&packed.lengths[chain.head], chain, walk, total, 1)


cdef inline int pass_table(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """The chain in the indirect table that the loaded descriptor refers to. What WRITE says there means nothing."""
    cdef uint32_t length = len_of(walk.word)
    cdef void *hva
    cdef int status
    chain.head = id_of(walk.word)
    if fr_unlikely(not enters(packed, walk, end) or not fr_whole(memory, walk.addr, length, &hva)):
        walk.n_out = 0
        return FP_AT_SLOT
    status = pass_entries(packed, memory, chain, walk, hva, <const uint8_t *>hva + length)
    if status == FR_OK:
        place.at += FR_DESC_SIZE
        place.position += 1
    return status


cdef inline int pass_one(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk,
) noexcept nogil:
    """A chain of one descriptor."""
    cdef uint32_t *length = &packed.lengths[id_of(walk.word)]
    cdef void *hva
    chain.head = id_of(walk.word)
    if fr_unlikely(not fr_whole(memory, walk.addr, len_of(walk.word), &hva)):
        walk.n_out = 0
        return FP_AT_SLOT
    if fr_unlikely(length[0] != 0):
        walk.n_out = 0
        return FR_E_ID_IN_FLIGHT
    walk.segment.hva = hva
    walk.segment.len = len_of(walk.word)
    walk.segment += 1
    place.at += FR_DESC_SIZE
    place.position += 1
    if flags_of(walk.word) & FR_DESC_F_WRITE:
        fr_store_u32_pair(&chain.n_out, 0, 1)
        fr_store_u32_pair(&chain.out_bytes, 0, len_of(walk.word))
        length[0] = 1 | FR_DESC_F_WRITE << 16
    else:
        fr_store_u32_pair(&chain.n_out, 1, 0)
        fr_store_u32_pair(&chain.out_bytes, len_of(walk.word), 0)
        length[0] = 1
    return FR_OK


cdef inline int take(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """The chain at *place*, if one is there: FR_OK, FR_EMPTY, where it is otherwise to go on, or a negative status."""
    cdef uint32_t flags
    # Acquire: what the driver wrote before it made that available (the rest of the descriptor and of its list, the
    # buffers) is seen by all later loads.
    walk.word = fr_load_acquire_u64(desc_word(place.at))
    flags = flags_of(walk.word) & (FR_MARKS | FR_DESC_F_NEXT | FR_DESC_F_INDIRECT)
    chain.segments, chain.position = walk.segment, <uint16_t>place.position
    if flags == place.marks:
        walk.addr = fr_load_u64(place.at)
        return pass_one(packed, memory, chain, place, walk)
    if fr_unlikely(flags & FR_MARKS != place.marks):  # 2.8.1: AVAIL is as it was the last time round, or USED is ours
        return FR_EMPTY
    walk.addr = fr_load_u64(place.at)
    if flags & FR_DESC_F_INDIRECT:
        return pass_table(packed, memory, chain, place, walk, end)
    return pass_list(packed, memory, chain, place, walk, end)


cdef inline void settle_taken(FrPacked *packed, const Place *place) noexcept nogil:
    """All up to *place* is taken."""
    cdef uint32_t slot = slot_of(packed, place)
    cdef uint32_t marks = place.marks
    if packed.n_seen != 0:
        fp_unsee(packed, slot - packed.ring.next_avail + (packed.ring.size if marks != packed.avail_marks else 0))
    if fr_unlikely(slot == packed.ring.size):
        slot = 0
        marks ^= FR_MARKS
    packed.ring.next_avail = <uint16_t>slot
    if fr_unlikely(marks != packed.avail_marks):
        packed.avail_marks = <uint16_t>marks


# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef inline int fp_pop_batch(FrPacked *packed, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef const FrMemory *memory = packed.ring.memory
    cdef FrChain *chain = batch.chains
    cdef FrChain *stop = chain + min(limit, batch.max_chains)
    cdef FrSegment *end = batch.segments + batch.max_segments
    cdef int status = FR_EMPTY
    cdef Place place
    cdef FrPackedWalk walk
    if fr_unlikely(packed.ring.status != FR_OK):
        batch.n_chains = 0
        return packed.ring.status
    place.at = packed.ring.desc + FR_DESC_SIZE * <size_t>packed.ring.next_avail
    place.edge = packed.ring.desc + FR_DESC_SIZE * <size_t>(
        packed.ring.size if fp_same_lap(packed) else packed.published_used)
    place.marks = packed.avail_marks
    place.position = packed.ring.next_avail | wrap_of(place.marks)
    walk.segment = batch.segments
    while chain != stop:
        if fr_unlikely(place.at == place.edge and not turn(packed, &place, 0)):
            if chain != batch.chains:
                break
            status = FP_BEFORE_CHAIN
        elif fr_unlikely(walk.segment == end):
            chain.position = <uint16_t>place.position
            status = FP_BEFORE_CHAIN
        else:
            status = take(packed, memory, chain, &place, &walk, end)
        if fr_unlikely(status != FR_OK):
            if status == FR_EMPTY:
                break
            # By value, and nothing after it: a call in the loop would cost every chain the registers that it spoils.
            return fp_pop_rest(packed, batch, chain, stop, status, walk)
        chain += 1
    batch.n_chains = <uint32_t>(chain - batch.chains)
    if chain == batch.chains:
        return FR_EMPTY
    settle_taken(packed, &place)
    return FR_OK
