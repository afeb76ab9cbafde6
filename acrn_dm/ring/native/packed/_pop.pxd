# Take chains of a packed ring, inlined into whoever takes them: what chains are as a rule (a few descriptors, each buffer
# in one region, or an indirect table of a few) is walked here, with no more instructions than that needs. At the first
# thing else ``fp_pop_rest`` takes over where this has come to, so here, too, each field is loaded once.

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u64, fr_load_u64, fr_store_u32_pair, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, fault,
)
from acrn_dm.ring.native._memory cimport FrMemory, fr_whole
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrPacked, FrPackedWalk
from acrn_dm.ring.native._status cimport FR_E_ID_IN_FLIGHT, FR_E_TOTAL, FR_EMPTY, FR_OK
from acrn_dm.ring.native.packed._layout cimport FR_MARKS, FR_OFF, desc_word, flags_of, id_of, len_of, side_of
from acrn_dm.ring.native.packed._packed cimport FP_NOT_QUICK, fp_advance, fp_pop_rest
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FR_FEW = 8                # descriptors of a chain that are walked here


cdef inline bint add(const FrMemory *memory, FrPackedWalk *walk) noexcept nogil:
    """Append the loaded buffer's segment; false where it does not lie in one region, is empty or out of order."""
    cdef void *hva
    cdef uint32_t side = side_of(walk.word)
    if fr_unlikely(not fr_whole(memory, walk.addr, len_of(walk.word), &hva)):
        return False
    if fr_unlikely(side == 0 and walk.counts >> 32 != 0):
        return False
    walk.counts += <uint64_t>1 << side
    walk.segment.hva = hva
    walk.segment.len = len_of(walk.word)
    walk.segment += 1
    return True


cdef inline int finish(
    FrPacked *packed, FrChain *chain, const FrPackedWalk *walk, uint32_t n, uint64_t sizes, uint64_t total,
) noexcept nogil:
    """The chain of *n* descriptors of the ring was walked to its end."""
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(packed.lengths[chain.head] != 0):
        return fault(&packed.ring, FR_E_ID_IN_FLIGHT, chain.position & FR_OFF, chain.head)
    if fr_unlikely(total >> 32 != 0):  # a used descriptor's len has 32 bits
        return fault(&packed.ring, FR_E_TOTAL, chain.position & FR_OFF, total)
    fr_store_u32_pair(&chain.n_out, <uint32_t>walk.counts, <uint32_t>(walk.counts >> 32))
    fr_store_u32_pair(&chain.out_bytes, <uint32_t>sizes, <uint32_t>(sizes >> 32))
    packed.lengths[chain.head] = n | (FR_DESC_F_WRITE << 16 if walk.counts >> 32 != 0 else 0)
    return FR_OK


cdef inline bint turn(const FrPacked *packed, FrPackedWalk *walk) noexcept nogil:
    """From the end of the ring to its begin; false where nothing more may be taken."""
    if walk.behind == 0:
        return False
    walk.at = packed.ring.desc
    walk.edge = walk.at + FR_DESC_SIZE * <size_t>walk.behind
    walk.behind = 0
    walk.marks ^= FR_MARKS
    return True


cdef inline int pass_list(FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk) noexcept nogil:
    """The chain from its first descriptor on, which is loaded."""
    cdef uint64_t sizes = 0, total = 0
    cdef uint32_t n = 0
    walk.counts = 0
    while True:
        if fr_unlikely(not add(memory, walk)):
            return FP_NOT_QUICK
        sizes += <uint64_t>len_of(walk.word) << side_of(walk.word)
        total += len_of(walk.word)
        n += 1
        walk.at += FR_DESC_SIZE
        if not flags_of(walk.word) & FR_DESC_F_NEXT:
            break
        walk.loaded = False
        if fr_unlikely(n == FR_FEW or walk.at == walk.edge and not turn(packed, walk)):
            return FP_NOT_QUICK
        # What NEXT leads to was made available before the first one was (2.8.6), so it needs no fence; its marks are
        # judged all the same, for a device uses no descriptor whose AVAIL has not changed (2.8.14).
        walk.word = fr_load_u64(desc_word(walk.at))
        walk.addr = fr_load_u64(walk.at)
        walk.loaded = True
        if fr_unlikely(flags_of(walk.word) & (FR_MARKS | FR_DESC_F_INDIRECT) != walk.marks):
            return FP_NOT_QUICK
    chain.head = id_of(walk.word)  # the buffer id is that of the last one (2.8.6)
    return finish(packed, chain, walk, n, sizes, total)


cdef inline int pass_table(FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk) noexcept nogil:
    """The chain in the indirect table that the loaded descriptor refers to. What WRITE says there means nothing, and of
    a table each entry is passed once (2.8.7).
    """
    cdef uint64_t sizes = 0, total = 0
    cdef uint32_t length = len_of(walk.word)
    cdef void *hva
    walk.counts = 0
    if fr_unlikely(not packed.ring.indirect or flags_of(walk.word) & FR_DESC_F_NEXT):
        return FP_NOT_QUICK
    if fr_unlikely(length % FR_DESC_SIZE != 0 or length > FR_FEW * FR_DESC_SIZE):
        return FP_NOT_QUICK
    if fr_unlikely(not fr_whole(memory, walk.addr, length, &hva)):
        return FP_NOT_QUICK
    chain.head = id_of(walk.word)
    walk.table = walk.entry = <const uint8_t *>hva
    walk.table_end = walk.table + length
    walk.at += FR_DESC_SIZE
    while True:
        walk.addr = fr_load_u64(walk.entry)
        walk.word = fr_load_u64(desc_word(walk.entry))
        if fr_unlikely(not add(memory, walk)):
            return FP_NOT_QUICK
        sizes += <uint64_t>len_of(walk.word) << side_of(walk.word)
        total += len_of(walk.word)
        walk.entry += FR_DESC_SIZE
        if walk.entry == walk.table_end:
            break
    return finish(packed, chain, walk, 1, sizes, total)


cdef inline int pass_one(FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk) noexcept nogil:
    """A chain of one descriptor."""
    walk.counts = 0
    if fr_unlikely(not add(memory, walk)):
        return FP_NOT_QUICK
    chain.head = id_of(walk.word)
    walk.at += FR_DESC_SIZE
    return finish(packed, chain, walk, 1, <uint64_t>len_of(walk.word) << side_of(walk.word), 0)


cdef inline int take(FrPacked *packed, const FrMemory *memory, FrChain *chain, FrPackedWalk *walk) noexcept nogil:
    """The chain at *at*, if one is there: FR_OK, FR_EMPTY, FP_NOT_QUICK or a negative status."""
    cdef uint32_t flags
    # Acquire: what the driver wrote before it made that available (the descriptor, the rest of its list, the buffers) is
    # seen by all later loads.
    walk.word = fr_load_acquire_u64(desc_word(walk.at))
    flags = flags_of(walk.word)
    if flags & FR_MARKS != walk.marks:  # 2.8.1: AVAIL has not changed for this time round, or USED is ours
        return FR_EMPTY
    walk.addr = fr_load_u64(walk.at)
    walk.loaded, walk.table, walk.table_end = True, NULL, NULL
    chain.segments = walk.segment
    chain.position = <uint16_t>((walk.at - packed.ring.desc) // FR_DESC_SIZE | walk.marks << 8)
    if fr_unlikely(walk.end - walk.segment < FR_FEW):
        walk.counts = 0
        return FP_NOT_QUICK
    if not flags & (FR_DESC_F_NEXT | FR_DESC_F_INDIRECT):
        return pass_one(packed, memory, chain, walk)
    if flags & FR_DESC_F_INDIRECT:
        return pass_table(packed, memory, chain, walk)
    return pass_list(packed, memory, chain, walk)


# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef inline int fp_pop_batch(FrPacked *packed, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef const FrMemory *memory = packed.ring.memory
    cdef FrChain *chain = batch.chains
    cdef FrChain *stop = chain + min(limit, batch.max_chains)
    cdef uint32_t slot = packed.ring.next_avail
    cdef uint32_t left = packed.ring.size - packed.n_taken
    cdef uint32_t before_end = packed.ring.size - slot
    cdef FrPackedWalk walk
    cdef int status = FR_EMPTY
    batch.n_chains = 0
    if fr_unlikely(packed.ring.status != FR_OK):
        return packed.ring.status
    walk.at = packed.ring.desc + FR_DESC_SIZE * <size_t>slot
    walk.edge = walk.at + FR_DESC_SIZE * <size_t>min(left, before_end)
    walk.behind = left - before_end if left > before_end else 0
    walk.marks = packed.avail_marks
    walk.segment, walk.end = batch.segments, batch.segments + batch.max_segments
    while chain != stop:
        if fr_unlikely(walk.at == walk.edge and not turn(packed, &walk)):
            if chain != batch.chains:
                break
            return fp_pop_rest(packed, batch, chain, stop, FR_OK, walk)
        status = take(packed, memory, chain, &walk)
        if fr_unlikely(status != FR_OK):
            if status == FR_EMPTY:
                break
            # By value, and nothing after it: a call in the loop would cost every chain the registers that it spoils.
            return fp_pop_rest(packed, batch, chain, stop, status, walk)
        chain += 1
    if chain == batch.chains:
        return FR_EMPTY
    batch.n_chains = <uint32_t>(chain - batch.chains)
    left = <uint32_t>((walk.at - packed.ring.desc) // FR_DESC_SIZE)
    fp_advance(packed, left - slot + (packed.ring.size if walk.marks != packed.avail_marks else 0), batch.n_chains)
    return FR_OK
