# What the walks of both ring formats share: descriptors become segments, indirect tables are entered. All inlined, for
# a batch pays it per descriptor.
#
# Pops compile this into their own module: a walk called in another one takes 4 to 10 % more instructions a chain, as
# benchmarks/ring_instructions counts them. The guest writes what is read here meanwhile: each field is loaded exactly
# once, every loop is bounded by a number of ours. No Python object is touched.

from acrn_dm.ring.native._atomics cimport fr_unlikely
from acrn_dm.ring.native._memory cimport FrSegment, copy_from_ram, fr_in_ram, fr_translate, fr_writable
from acrn_dm.ring.native._records cimport FrBatch, FrChain, FrRing
from acrn_dm.ring.native._status cimport (
    FR_E_ADDRESS, FR_E_INDIRECT_ADDRESS, FR_E_INDIRECT_LEN, FR_E_INDIRECT_NESTED, FR_E_INDIRECT_NEXT, FR_E_INDIRECT_OFF,
    FR_E_ORDER, FR_E_PIECES, FR_E_ROOM, FR_E_TOTAL, FR_OK,
)
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FR_DESC_SIZE = 16         # 2.7.5, 2.8.13: le64 addr, le32 len, then le16 flags and next, or le16 id and flags
    FR_DESC_F_NEXT = 1
    FR_DESC_F_WRITE = 2
    FR_DESC_F_INDIRECT = 4
    FR_MAX_DESCRIPTORS = 1024  # of one chain through an indirect table, where the queue is smaller; QEMU's limit
    FR_MAX_BATCH = 256        # chains one pop can return

cdef struct Descriptor:
    uint64_t addr
    uint32_t len
    uint16_t flags
    uint16_t next             # of a packed ring: the buffer id

cdef struct Table:
    const uint8_t *hva    # NULL: an indirect table that lies across touching regions
    uint64_t gpa          # of an indirect table only
    uint32_t n_entries
    bint indirect


cdef struct Parts:
    FrSegment *segments   # n of them, of which the first n_out are device-readable
    uint32_t n
    uint32_t n_out
    uint64_t out_bytes
    uint64_t in_bytes


cdef inline int settle(FrRing *ring, int status) noexcept nogil:
    """A fault of the driver's breaks the ring for good; too small an array of the caller's does not."""
    if status < 0 and status != FR_E_ROOM:
        ring.status = status
    return status


cdef inline int end_of_batch(FrRing *ring, const FrBatch *batch, int status) noexcept nogil:
    """What a pop returns that ended by *status*. A ring's own array holds every chain whose buffers do not overlap; one
    that it does not hold is the driver's fault.
    """
    if batch.n_chains > 0:
        return FR_OK
    if status == FR_E_ROOM and batch.max_segments >= ring.max_segments:
        ring.fault_value, status = ring.max_segments, FR_E_PIECES
    return settle(ring, status)


cdef inline int fault(FrRing *ring, int status, uint32_t index, uint64_t value) noexcept nogil:
    ring.fault_index = index
    ring.fault_value = value
    return status


cdef inline const uint8_t *entry_of(
    const FrRing *ring, const Table *table, uint32_t index, uint8_t *copy,
) noexcept nogil:
    """Where an entry can be loaded from: the guest's memory, or *copy* if its table lies across regions."""
    if fr_unlikely(table.hva == NULL):
        copy_from_ram(ring.memory, table.gpa + index * FR_DESC_SIZE, copy, FR_DESC_SIZE)
        return copy
    return table.hva + index * FR_DESC_SIZE


cdef inline int enter_indirect(FrRing *ring, Table *table, uint32_t index, const Descriptor *d) noexcept nogil:
    """Switch to the table that *d* refers to. WRITE in *d* means nothing (2.7.5.3.2, 2.8.7), and no alignment is asked
    for.
    """
    cdef uint64_t room
    if not ring.indirect:
        return fault(ring, FR_E_INDIRECT_OFF, index, d.flags)
    if table.indirect:
        return fault(ring, FR_E_INDIRECT_NESTED, index, d.flags)
    if d.flags & FR_DESC_F_NEXT:
        return fault(ring, FR_E_INDIRECT_NEXT, index, d.flags)
    if d.len == 0 or d.len % FR_DESC_SIZE != 0:
        return fault(ring, FR_E_INDIRECT_LEN, index, d.len)
    table.hva = <const uint8_t *>fr_translate(ring.memory, d.addr, &room)
    if fr_unlikely(room < d.len):
        table.hva = NULL
        if not fr_in_ram(ring.memory, d.addr, d.len):
            return fault(ring, FR_E_INDIRECT_ADDRESS, index, d.addr)
    table.gpa = d.addr
    table.n_entries = d.len // FR_DESC_SIZE
    table.indirect = True
    return FR_OK


cdef inline int add_crossing(
    FrRing *ring, FrSegment *segments, uint32_t room, uint64_t gpa, uint32_t length,
) noexcept nogil:
    """Make the segments of a buffer that its first region does not hold; returns how many, or a negative status."""
    cdef uint64_t contiguous
    cdef void *hva
    cdef uint32_t n = 0
    while True:
        hva = fr_translate(ring.memory, gpa, &contiguous)
        if hva == NULL:  # asked before the room, which a chain that leaves RAM may not lack
            return FR_E_ADDRESS
        if n == room:
            return FR_E_ROOM
        segments[n].hva = hva
        segments[n].len = min(contiguous, length)
        n += 1
        if contiguous >= length:
            return n
        # The rest lies in a touching region, if anywhere; past 2^64 there is nothing.
        length -= <uint32_t>contiguous
        gpa += contiguous
        if gpa == 0:
            return FR_E_ADDRESS


cdef inline int add_buffer(FrRing *ring, Parts *parts, uint32_t room, uint32_t at, const Descriptor *d) noexcept nogil:
    """Append the segments of one buffer. A zero-length one names no memory and is skipped, whatever else it says."""
    cdef FrSegment *segment = parts.segments + parts.n
    cdef uint64_t contiguous
    cdef int n_added = 1
    if fr_unlikely(d.len == 0):
        return FR_OK
    if fr_unlikely(parts.n == room):
        return fault(ring, FR_E_ROOM, at, room)
    segment.hva = fr_translate(ring.memory, d.addr, &contiguous)
    segment.len = d.len
    if fr_unlikely(contiguous < d.len):
        n_added = add_crossing(ring, segment, room - parts.n, d.addr, d.len)
        if n_added < 0:
            return fault(ring, n_added, at, d.addr)
    # Lengths are summed in 64 bits: a chain has less than 2^16 of them, each below 2^32.
    if d.flags & FR_DESC_F_WRITE:
        if fr_unlikely(ring.memory.n_readonly != 0) and not fr_writable(ring.memory, d.addr, d.len):
            return fault(ring, FR_E_ADDRESS, at, d.addr)
        parts.in_bytes += d.len
    else:
        if fr_unlikely(parts.in_bytes != 0):  # 2.7.4.2, 2.8.17: readable ones come first
            return fault(ring, FR_E_ORDER, at, d.flags)
        parts.out_bytes += d.len
        parts.n_out += n_added
    parts.n += n_added
    return FR_OK


cdef inline int describe(FrRing *ring, const Parts *parts, FrChain *chain, uint32_t at) noexcept nogil:
    """Fill in *chain*, which begins at descriptor *at*; returns its number of segments, or a negative status."""
    if fr_unlikely(parts.out_bytes + parts.in_bytes > UINT32_MAX):  # a used element's len has 32 bits
        return fault(ring, FR_E_TOTAL, at, parts.out_bytes + parts.in_bytes)
    chain.segments = parts.segments
    chain.n_out = parts.n_out
    chain.n_in = parts.n - parts.n_out
    chain.out_bytes = <uint32_t>parts.out_bytes
    chain.in_bytes = <uint32_t>parts.in_bytes
    return <int>parts.n
