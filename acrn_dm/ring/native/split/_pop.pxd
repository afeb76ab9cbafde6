# Take chains of a split ring, inlined into whoever takes them: what chains are as a rule (a few descriptors, each
# buffer in one region, an indirect table from the start if at all) is walked here, with no more instructions than that
# needs. At the first thing else ``fr_pop_rest`` takes over where this has come to, so here, too, each field is loaded
# once.

from acrn_dm.ring.native._atomics cimport fr_load_u16, fr_load_u32, fr_load_u64, fr_store_u32_pair, fr_unlikely
from acrn_dm.ring.native._buffers cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE,
)
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_whole
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrRing, FrWalk
from acrn_dm.ring.native._status cimport FR_EMPTY, FR_OK
from acrn_dm.ring.native.split._layout cimport avail_entry, load_next
from acrn_dm.ring.native.split._split cimport fr_look, fr_pop_refused, fr_pop_rest
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FR_FEW = 8                # descriptors of a chain that are walked here


cdef inline FrSegment *hand_over(
    FrWalk *walk, FrSegment *segment, size_t n_out, const uint8_t *at, uint64_t addr, uint64_t length, uint32_t flags,
) noexcept nogil:
    """Say in *walk* how far the walk of a table has come; NULL."""
    walk.segment, walk.n_out = segment, n_out
    walk.at, walk.addr, walk.len, walk.flags = at, addr, length, flags
    return NULL


cdef inline FrSegment *misled(FrWalk *walk, const uint8_t *at, size_t index) noexcept nogil:
    """Say in *walk* that the next of the descriptor at *at* is outside its table; NULL."""
    walk.addr, walk.len = index, <size_t>(at - walk.table) // FR_DESC_SIZE
    walk.at = NULL
    return NULL


cdef inline FrSegment *pass_writable(
    const FrMemory *memory, FrChain *chain, FrSegment *first, FrSegment *segment, const FrSegment *stop,
    const uint8_t *at, uint32_t flags, uint64_t total, FrWalk *walk,
) noexcept nogil:
    """The rest of a chain whose device-readable part is done; as ``pass_list``."""
    cdef uint64_t addr, length
    cdef uint64_t n_bytes = total
    cdef size_t index
    cdef uint32_t n_out = <uint32_t>(segment - first)
    while True:
        addr, length = fr_load_u64(at), fr_load_u32(at + 8)
        # WRITE or both: one comparison of numbers.
        if fr_unlikely(flags - FR_DESC_F_WRITE > <uint32_t>FR_DESC_F_NEXT or segment == stop):
            break
        if fr_unlikely(not fr_whole(memory, addr, length, &segment.hva)):
            break
        segment.len = length
        n_bytes += length
        segment += 1
        if not flags & FR_DESC_F_NEXT:
            if fr_unlikely(n_bytes >> 32 != 0):
                segment -= 1
                break
            chain.n_out = n_out
            chain.n_in = <uint32_t>(segment - first) - n_out
            chain.out_bytes = <uint32_t>total
            chain.in_bytes = <uint32_t>(n_bytes - total)
            return segment
        index = load_next(at)
        if fr_unlikely(index >= walk.n_entries):
            return misled(walk, at, index)
        at = walk.table + FR_DESC_SIZE * index
        flags = fr_load_u16(at + 12)
    return hand_over(walk, segment, n_out, at, addr, length, flags)


# Lists of the ring and those of indirect tables both come here by one call, so that it is inlined: as a function it
# took a tenth of a chain's instructions for its registers and arguments.
cdef inline FrSegment *pass_list(
    const FrMemory *memory, FrChain *chain, FrSegment *segment, const FrSegment *stop, const uint8_t *at,
    uint32_t flags, FrWalk *walk,
) noexcept nogil:
    """Fill in *chain* and its segments from its first descriptor in *walk.table* on, whose flags are loaded: of the
    device-readable ones, then of the device-writable ones. Where that ends, or NULL: *walk* then says how far this has
    come, or has *at* NULL after a fault. One sum goes over both parts, for a used element's len has 32 bits for both.
    """
    cdef FrSegment *first = segment
    cdef uint64_t addr, length, n_bytes = 0
    cdef size_t index
    while flags & ~<uint32_t>FR_DESC_F_NEXT == 0:
        addr, length = fr_load_u64(at), fr_load_u32(at + 8)
        if fr_unlikely(segment == stop or not fr_whole(memory, addr, length, &segment.hva)):
            return hand_over(walk, segment, segment - first, at, addr, length, flags)
        segment.len = length
        n_bytes += length
        segment += 1
        if not flags & FR_DESC_F_NEXT:
            if fr_unlikely(n_bytes >> 32 != 0):
                return hand_over(walk, segment - 1, segment - 1 - first, at, addr, length, flags)
            fr_store_u32_pair(&chain.n_out, <uint32_t>(segment - first), 0)
            fr_store_u32_pair(&chain.out_bytes, <uint32_t>n_bytes, 0)
            return segment
        index = load_next(at)
        if fr_unlikely(index >= walk.n_entries):
            return misled(walk, at, index)
        at = walk.table + FR_DESC_SIZE * index
        flags = fr_load_u16(at + 12)
    return pass_writable(memory, chain, first, segment, stop, at, flags, n_bytes, walk)


cdef inline FrSegment *pass_one(
    const FrRing *ring, const FrMemory *memory, FrChain *chain, FrSegment *segment, const uint8_t *at, uint32_t flags,
    FrWalk *walk,
) noexcept nogil:
    """The same for a chain of one descriptor."""
    cdef uint64_t addr = fr_load_u64(at), length = fr_load_u32(at + 8)
    if fr_unlikely(not fr_whole(memory, addr, length, &segment.hva)):
        walk.table, walk.n_entries = ring.desc, ring.size
        return hand_over(walk, segment, 0, at, addr, length, flags)
    segment.len = length
    if flags & FR_DESC_F_WRITE:
        fr_store_u32_pair(&chain.n_out, 0, 1)
        fr_store_u32_pair(&chain.out_bytes, 0, <uint32_t>length)
    else:
        fr_store_u32_pair(&chain.n_out, 1, 0)
        fr_store_u32_pair(&chain.out_bytes, <uint32_t>length, 0)
    return segment + 1


cdef inline FrSegment *take(
    const FrRing *ring, const FrMemory *memory, FrChain *chain, FrSegment *segment, size_t head, const FrSegment *last,
    FrWalk *walk,
) noexcept nogil:
    """The same for the chain that begins at *head*."""
    cdef const uint8_t *at = ring.desc + FR_DESC_SIZE * head
    cdef uint32_t flags = fr_load_u16(at + 12)
    cdef uint64_t addr, length
    cdef const FrSegment *stop
    cdef void *hva
    if fr_unlikely(segment > last):
        walk.table, walk.n_entries = ring.desc, ring.size
        return hand_over(walk, segment, 0, at, fr_load_u64(at), fr_load_u32(at + 8), flags)
    if not flags & (FR_DESC_F_NEXT | FR_DESC_F_INDIRECT):
        return pass_one(ring, memory, chain, segment, at, flags, walk)
    walk.table, walk.n_entries = ring.desc, ring.size
    stop = segment + <size_t>FR_FEW
    if flags & FR_DESC_F_INDIRECT:
        # What WRITE says there means nothing (2.7.5.3.2).
        addr, length = fr_load_u64(at), fr_load_u32(at + 8)
        if fr_unlikely(not ring.indirect or flags & FR_DESC_F_NEXT or length % FR_DESC_SIZE != 0):
            return hand_over(walk, segment, 0, at, addr, length, flags)
        if fr_unlikely(not fr_whole(memory, addr, length, &hva)):
            return hand_over(walk, segment, 0, at, addr, length, flags)
        at = <const uint8_t *>hva
        walk.table, walk.n_entries = at, length // FR_DESC_SIZE
        stop = segment + min(<size_t>FR_FEW, walk.n_entries)
        flags = fr_load_u16(at + 12)
    elif fr_unlikely(ring.size < FR_FEW):
        return hand_over(walk, segment, 0, at, fr_load_u64(at), fr_load_u32(at + 8), flags)
    return pass_list(memory, chain, segment, stop, at, flags, walk)


# Take up to *limit* chains, fewer where the batch has no room. A malformed chain ends the batch; the next call meets it
# first, breaks the ring and says why, so what the device sees does not depend on its batch size.
cdef inline int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef const FrMemory *memory = ring.memory
    cdef FrChain *chain = batch.chains
    cdef const FrChain *stop
    cdef FrSegment *segment = batch.segments
    cdef const FrSegment *last
    cdef FrWalk walk
    cdef size_t head, index = ring.next_avail
    cdef int status
    cdef uint32_t n
    # The driver's index is loaded only when all it showed last time is taken: the line it stands in travels between
    # two cores.
    if fr_unlikely(index == ring.seen_avail or ring.status != FR_OK):
        status = fr_look(ring)
        if status != FR_OK:
            batch.n_chains = 0
            return status
    last = segment + batch.max_segments - FR_FEW
    n = min(limit, batch.max_chains, <uint16_t>(ring.seen_avail - index))
    batch.n_chains = n
    stop = chain + n
    while chain != stop:
        head = fr_load_u16(avail_entry(ring.avail, index & ring.mask))
        chain.segments, chain.head, chain.position = segment, <uint16_t>head, <uint16_t>index
        # Without the second a driver could have one chain worked on twice at a time, and any number of them in flight.
        if fr_unlikely(head >= ring.size or ring.in_flight[head]):
            return fr_pop_refused(ring, batch, chain, <uint16_t>index, <uint16_t>head)
        ring.in_flight[head] = True  # at once: so its place need not be kept. fr_pop_rest takes it back after a fault.
        segment = take(ring, memory, chain, segment, head, last, &walk)
        if fr_unlikely(segment == NULL):
            # By value, and nothing after it: so *walk* and what goes with it may stay in registers.
            return fr_pop_rest(ring, batch, chain, stop, walk)
        index += 1
        chain += 1
    ring.next_avail = <uint16_t>index
    return FR_OK if n != 0 else FR_EMPTY


# Take one chain; *segments* has room for *room* of them. FR_EMPTY, or a negative status, which breaks the ring.
cdef inline int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    cdef FrBatch batch
    batch.chains, batch.max_chains = chain, 1
    batch.segments, batch.max_segments = segments, room
    return fr_pop_batch(ring, &batch, 1)
