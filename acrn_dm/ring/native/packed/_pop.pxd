# Take chains of a packed ring, inlined into whoever takes them: what chains are as a rule (each buffer in one region,
# and so an indirect table, if there is one) is walked here, with no more instructions than that needs, and no more
# stores: the fence that ends a batch waits for all of them. At the first thing else ``fp_pop_rest`` takes over where
# this has come to, so here, too, each field is loaded once.

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u64, fr_load_u64, fr_store_u16_pair, fr_store_u32_pair, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_whole
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrPackedWalk
from acrn_dm.ring.native._status cimport FR_E_ID_IN_FLIGHT, FR_E_TOTAL, FR_EMPTY, FR_OK
from acrn_dm.ring.native.packed._layout cimport FR_MARKS, desc_word, flags_of, id_of, len_of
from acrn_dm.ring.native.packed._packed cimport fp_pop_rest
from acrn_dm.ring.native.packed._position cimport (
    FP_AT_ENTRY, FP_AT_SLOT, FP_BEFORE_CHAIN, FP_BEFORE_SLOT, fp_same_lap, fp_unsee,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT_SHIFT = 4            # FR_DESC_SIZE

# How far a batch has come.
cdef struct Place:
    const uint8_t *at         # the next descriptor of the ring
    const uint8_t *edge       # up to where descriptors may be taken without a turn: the end of the ring, or before it
    uint32_t marks            # of what is available at *at*


cdef inline uint32_t slot_of(const FrPacked *packed, const Place *place) noexcept nogil:
    return <uint32_t>(<uint64_t>(place.at - packed.ring.desc) >> SLOT_SHIFT)


# The position, as FrChain has it, and in the lower half *id*: AVAIL becomes the wrap counter, USED goes.
cdef inline uint32_t named(const FrPacked *packed, const Place *place, uint32_t id) noexcept nogil:
    return <uint32_t>(place.at - packed.ring.desc) << (16 - SLOT_SHIFT) | place.marks << 24 | id


cdef inline bint turn(const FrPacked *packed, Place *place) noexcept nogil:
    """From the edge, where that is the end of the ring, to its begin; false where nothing more may be taken: all that
    is there is in flight or not shown as used.
    """
    if not fp_same_lap(packed) or place.marks != packed.avail_marks or packed.published_used == 0:
        return False
    place.at = packed.ring.desc
    place.edge = place.at + FR_DESC_SIZE * <size_t>packed.published_used
    place.marks ^= FR_MARKS
    return True


cdef inline bint add(
    const FrMemory *memory, FrChain *chain, FrPackedWalk *walk, uint64_t *total, uint32_t *kind,
) noexcept nogil:
    """Append the loaded buffer's segment; false where it does not lie in one region, is empty or out of order.

    *kind* is WRITE from the first device-writable one on; what comes before that is in *chain* then.
    """
    cdef void *hva
    if fr_unlikely(not fr_whole(memory, walk.addr, len_of(walk.word), &hva)):
        return False
    if flags_of(walk.word) & FR_DESC_F_WRITE != kind[0]:
        if fr_unlikely(kind[0] != 0):
            return False
        kind[0] = FR_DESC_F_WRITE
        chain.n_out, chain.out_bytes = <uint32_t>(walk.segment - chain.segments), <uint32_t>total[0]
    total[0] += len_of(walk.word)
    walk.segment.hva = hva
    walk.segment.len = len_of(walk.word)
    walk.segment += 1
    return True


cdef inline int leave(FrPackedWalk *walk, const FrChain *chain, uint32_t kind, int status) noexcept nogil:
    """*status*, with what fp_pop_rest has to know."""
    walk.n_out = chain.n_out if kind != 0 else <uint32_t>(walk.segment - chain.segments)
    return status


cdef inline int finish(
    uint32_t *length, FrChain *chain, FrPackedWalk *walk, uint64_t total, uint32_t kind, uint32_t n,
) noexcept nogil:
    """The chain of *n* descriptors of the ring was walked to its end; *length* is that of its buffer id."""
    cdef uint32_t n_segments = <uint32_t>(walk.segment - chain.segments)
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(length[0] != 0):
        return leave(walk, chain, kind, FR_E_ID_IN_FLIGHT)
    if fr_unlikely(total >> 32 != 0):  # a used descriptor's len has 32 bits
        return leave(walk, chain, kind, FR_E_TOTAL)
    length[0] = n | kind << 16
    if kind != 0:
        chain.n_in, chain.in_bytes = n_segments - chain.n_out, <uint32_t>total - chain.out_bytes
    else:
        fr_store_u32_pair(&chain.n_out, n_segments, 0)
        fr_store_u32_pair(&chain.out_bytes, <uint32_t>total, 0)
    return FR_OK


cdef inline int pass_list(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """The chain from its first descriptor on, which is loaded."""
    cdef uint64_t total = 0
    cdef uint32_t kind = 0
    chain.position = <uint16_t>(named(packed, place, 0) >> 16)
    while True:
        if fr_unlikely(not add(memory, chain, walk, &total, &kind)):
            return leave(walk, chain, kind, FP_AT_SLOT)
        place.at += FR_DESC_SIZE
        if not flags_of(walk.word) & FR_DESC_F_NEXT:
            break
        if fr_unlikely(walk.segment == end or place.at == place.edge and not turn(packed, place)):
            return leave(walk, chain, kind, FP_BEFORE_SLOT)
        # What NEXT leads to was made available before the first one was (2.8.6), so it needs no fence; its marks are
        # judged all the same, for a device uses no descriptor whose AVAIL has not changed (2.8.14).
        walk.word = fr_load_u64(desc_word(place.at))
        walk.addr = fr_load_u64(place.at)
        if fr_unlikely(flags_of(walk.word) & (FR_MARKS | FR_DESC_F_INDIRECT) != place.marks):
            return leave(walk, chain, kind, FP_AT_SLOT)
    chain.head = id_of(walk.word)  # the buffer id is that of the last one (2.8.6)
    return finish(
        &packed.lengths[id_of(walk.word)], chain, walk, total, kind, <uint32_t>(walk.segment - chain.segments),
    )


cdef inline bint enters(const FrPacked *packed, const FrPackedWalk *walk, const FrSegment *end) noexcept nogil:
    """Whether the table that the loaded descriptor refers to may be walked here, but for where it lies."""
    cdef uint32_t length = len_of(walk.word)
    if fr_unlikely(not packed.ring.indirect or flags_of(walk.word) & FR_DESC_F_NEXT):
        return False
    if fr_unlikely(length & (FR_DESC_SIZE - 1) != 0 or length > packed.ring.max_descriptors * FR_DESC_SIZE):
        return False
    return length <= <size_t>end - <size_t>walk.segment  # a segment is as long as an entry


cdef inline int pass_table(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk, const FrSegment *end,
) noexcept nogil:
    """The chain in the indirect table that the loaded descriptor refers to. What WRITE says there means nothing, and of
    a table each entry is passed once (2.8.7).
    """
    cdef uint64_t total = 0
    cdef uint32_t kind = 0
    cdef uint32_t length = len_of(walk.word)
    cdef const uint8_t *entry
    cdef const uint8_t *stop
    cdef void *hva
    fr_store_u16_pair(&chain.head, named(packed, place, id_of(walk.word)))
    if fr_unlikely(not enters(packed, walk, end) or not fr_whole(memory, walk.addr, length, &hva)):
        walk.n_out = 0
        return FP_AT_SLOT
    entry = <const uint8_t *>hva
    stop = entry + length
    while True:
        walk.addr = fr_load_u64(entry)
        walk.word = fr_load_u64(desc_word(entry))
        if fr_unlikely(not add(memory, chain, walk, &total, &kind)):
            walk.table, walk.n_entries = <const uint8_t *>hva, length >> SLOT_SHIFT
            return leave(walk, chain, kind, FP_AT_ENTRY)
        entry += FR_DESC_SIZE
        if entry == stop:
            break
    place.at += FR_DESC_SIZE
    return finish(&packed.lengths[chain.head], chain, walk, total, kind, 1)


cdef inline int pass_one(
    FrPacked *packed, const FrMemory *memory, FrChain *chain, Place *place, FrPackedWalk *walk,
) noexcept nogil:
    """A chain of one descriptor."""
    cdef uint32_t *length = &packed.lengths[id_of(walk.word)]
    cdef void *hva
    fr_store_u16_pair(&chain.head, named(packed, place, id_of(walk.word)))
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
    flags = flags_of(walk.word)
    chain.segments = walk.segment
    if flags & (FR_MARKS | FR_DESC_F_NEXT | FR_DESC_F_INDIRECT) == place.marks:
        walk.addr = fr_load_u64(place.at)
        return pass_one(packed, memory, chain, place, walk)
    if flags & FR_MARKS != place.marks:  # 2.8.1: AVAIL has not changed for this time round, or USED is ours
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
    walk.segment = batch.segments
    while chain != stop:
        if fr_unlikely(place.at == place.edge and not turn(packed, &place)):
            if chain != batch.chains:
                break
            status = FP_BEFORE_CHAIN
        elif fr_unlikely(walk.segment == end):
            chain.position = <uint16_t>(named(packed, &place, 0) >> 16)
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
