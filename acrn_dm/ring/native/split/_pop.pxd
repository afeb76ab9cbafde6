# Take chains of a split ring, inlined into whoever takes them: what chains are as a rule (a few descriptors, each
# buffer in one region, an indirect table from the start if at all) is walked here, with no more instructions than that
# needs. At the first thing else ``fr_pop_rest`` takes over where this has come to, so here, too, each field is loaded
# once.

from acrn_dm.ring.native._atomics cimport (
    fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_load_u64, fr_store_u32_pair, fr_unlikely,
)
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, fault, settle,
)
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_whole
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrRing, FrWalk
from acrn_dm.ring.native._status cimport (
    FR_E_HEAD, FR_E_IN_FLIGHT, FR_E_NEXT, FR_E_TOTAL, FR_EMPTY, FR_OK,
)
from acrn_dm.ring.native.split._layout cimport avail_entry, load_next
from acrn_dm.ring.native.split._split cimport fr_load_avail, fr_pop_rest
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FR_FEW = 8                # descriptors of a chain that are walked here
    NOT_QUICK = 2             # beside FR_OK and negative numbers


cdef inline void load(FrWalk *walk, const uint8_t *at) noexcept nogil:
    walk.at = at
    walk.addr = fr_load_u64(at)
    walk.len = fr_load_u32(at + 8)
    walk.flags = fr_load_u16(at + 12)


cdef inline bint add(const FrMemory *memory, FrWalk *walk) noexcept nogil:
    """Append the buffer's segment; false where it does not lie in one region, or is empty."""
    cdef void *hva
    if not fr_whole(memory, walk.addr, walk.len, &hva):
        return False
    walk.segment.hva = hva
    walk.segment.len = walk.len
    walk.segment += 1
    return True


cdef inline int step(FrRing *ring, FrWalk *walk) noexcept nogil:
    """Load the descriptor behind this one."""
    cdef size_t index = load_next(walk.at)
    if fr_unlikely(index >= walk.n_entries):
        return fault(ring, FR_E_NEXT, <uint32_t>((walk.at - walk.table) // FR_DESC_SIZE), index)
    load(walk, walk.table + FR_DESC_SIZE * index)
    return FR_OK


cdef inline int finish(
    FrRing *ring, FrChain *chain, FrWalk *walk, uint64_t out_bytes, uint64_t in_bytes,
) noexcept nogil:
    cdef size_t n_in = walk.segment - chain.segments - walk.n_out
    if fr_unlikely((out_bytes + in_bytes) >> 32 != 0):  # a used element's len has 32 bits
        return fault(ring, FR_E_TOTAL, chain.head, out_bytes + in_bytes)
    fr_store_u32_pair(&chain.n_out, <uint32_t>walk.n_out, <uint32_t>n_in)
    fr_store_u32_pair(&chain.out_bytes, <uint32_t>out_bytes, <uint32_t>in_bytes)
    return FR_OK


cdef inline int pass_list(
    FrRing *ring, const FrMemory *memory, FrChain *chain, FrWalk *walk, size_t few,
) noexcept nogil:
    """The chain from its first descriptor in *table* on, which is loaded, of at most *few*."""
    cdef FrSegment *stop = walk.segment + few
    cdef uint64_t out_bytes = 0, in_bytes = 0
    while True:
        if fr_unlikely(walk.flags & FR_DESC_F_INDIRECT or walk.segment == stop):
            return NOT_QUICK
        if fr_unlikely(not add(memory, walk)):
            return NOT_QUICK
        if walk.flags & FR_DESC_F_WRITE:
            in_bytes += walk.len
        else:
            if fr_unlikely(in_bytes != 0):
                walk.segment -= 1
                return NOT_QUICK
            out_bytes += walk.len
            walk.n_out += 1
        if not walk.flags & FR_DESC_F_NEXT:
            return finish(ring, chain, walk, out_bytes, in_bytes)
        if fr_unlikely(step(ring, walk) != FR_OK):
            return FR_E_NEXT


cdef inline int pass_one(FrRing *ring, const FrMemory *memory, FrChain *chain, FrWalk *walk) noexcept nogil:
    """A chain of one descriptor."""
    cdef uint32_t length = <uint32_t>walk.len
    if fr_unlikely(not add(memory, walk)):
        return NOT_QUICK
    if walk.flags & FR_DESC_F_WRITE:
        fr_store_u32_pair(&chain.n_out, 0, 1)
        fr_store_u32_pair(&chain.out_bytes, 0, length)
    else:
        fr_store_u32_pair(&chain.n_out, 1, 0)
        fr_store_u32_pair(&chain.out_bytes, length, 0)
    return FR_OK


cdef inline int take(FrRing *ring, const FrMemory *memory, FrChain *chain, FrWalk *walk) noexcept nogil:
    """The segments of the chain that begins at *chain.head*; *walk.segment* then is behind them."""
    cdef void *hva
    cdef size_t few = FR_FEW
    walk.table, walk.n_entries, walk.n_out = ring.desc, ring.size, 0
    load(walk, walk.table + FR_DESC_SIZE * <size_t>chain.head)
    if fr_unlikely(walk.segment > walk.last):
        return NOT_QUICK
    if not walk.flags & (FR_DESC_F_NEXT | FR_DESC_F_INDIRECT):
        return pass_one(ring, memory, chain, walk)
    if walk.flags & FR_DESC_F_INDIRECT:  # what WRITE says there means nothing (2.7.5.3.2)
        if fr_unlikely(not ring.indirect or walk.flags & FR_DESC_F_NEXT or walk.len % FR_DESC_SIZE != 0):
            return NOT_QUICK
        if fr_unlikely(not fr_whole(memory, walk.addr, walk.len, &hva)):
            return NOT_QUICK
        walk.table, walk.n_entries = <const uint8_t *>hva, walk.len // FR_DESC_SIZE
        few = min(few, walk.n_entries)
        load(walk, walk.table)
    elif fr_unlikely(ring.size < FR_FEW):
        return NOT_QUICK
    return pass_list(ring, memory, chain, walk, few)


cdef inline int look(FrRing *ring) noexcept nogil:
    """FR_OK when there is a chain to take. The driver's index is loaded only when all it showed last time is taken: the
    line it stands in travels between two cores."""
    cdef int status
    if fr_unlikely(ring.status != FR_OK):
        return ring.status
    if ring.next_avail != ring.seen_avail:
        return FR_OK
    status = settle(ring, fr_load_avail(ring))
    if fr_unlikely(status != FR_OK):
        return status
    return FR_EMPTY if ring.next_avail == ring.seen_avail else FR_OK


# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef inline int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef const FrMemory *memory = ring.memory
    cdef FrChain *chain = batch.chains
    cdef FrChain *stop
    cdef FrWalk walk
    cdef size_t mask = ring.size - 1
    cdef size_t head
    cdef size_t index
    cdef int status = look(ring)
    batch.n_chains = 0
    if status != FR_OK:
        return status
    index = ring.next_avail
    walk.segment, walk.end = batch.segments, batch.segments + batch.max_segments
    walk.last = walk.end - FR_FEW
    stop = chain + min(limit, batch.max_chains, <uint16_t>(ring.seen_avail - index))
    status = FR_EMPTY
    while chain != stop:
        head = fr_load_u16(avail_entry(ring.avail, index & mask))
        if fr_unlikely(head > mask):
            status = fault(ring, FR_E_HEAD, <uint32_t>(index & mask), head)
            break
        # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
        if fr_unlikely(ring.in_flight[head]):
            status = fault(ring, FR_E_IN_FLIGHT, <uint32_t>(index & mask), head)
            break
        chain.segments, chain.head, chain.position = walk.segment, <uint16_t>head, <uint16_t>index
        status = take(ring, memory, chain, &walk)
        if fr_unlikely(status != FR_OK):
            if status < 0:
                break
            # By value, and nothing after it: a call in the loop would cost every chain the registers that it spoils.
            return fr_pop_rest(ring, batch, chain, stop, walk)
        ring.in_flight[head] = True
        index += 1
        chain += 1
    ring.next_avail = <uint16_t>index
    batch.n_chains = <uint32_t>(chain - batch.chains)
    return FR_OK if chain != batch.chains else settle(ring, status)


# Take one chain; *segments* has room for *room* of them. FR_EMPTY, or a negative status, which breaks the ring.
cdef inline int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    cdef FrBatch batch
    batch.chains, batch.max_chains = chain, 1
    batch.segments, batch.max_segments = segments, room
    return fr_pop_batch(ring, &batch, 1)
