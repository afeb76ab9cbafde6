# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Split virtqueues of virtio 1.4 (2.7), device side: walk the available ring, translate buffers, publish used elements.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.

The guest writes all of this memory while we read it. So each of its fields is loaded exactly once, every loop is
bounded by a number we chose, and a guest address becomes a pointer only in ``fr_translate``. The walk touches no Python
object.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from acrn_dm.base.errors import GuestError

cdef enum:
    MAX_SIZE = 32768             # 2.7: the largest queue size
    # A copy this long takes some 10 us, longer than a contended wait for the GIL is likely to cost everyone else.
    NOGIL_COPY_BYTES = 262144


# --- guest memory -----------------------------------------------------------------------------------------------------

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


cdef uint32_t count_joints(const FrMemory *memory) noexcept nogil:
    cdef uint32_t a, b, n_joints = 0
    cdef uint64_t end
    for a in range(memory.n_regions):
        end = memory.regions[a].gpa + memory.regions[a].size
        for b in range(memory.n_regions):
            n_joints += end != 0 and end == memory.regions[b].gpa  # 0: it ends at 2^64, where nothing follows
    return n_joints


# --- the walk ---------------------------------------------------------------------------------------------------------

cdef struct Descriptor:
    uint64_t addr
    uint32_t len
    uint16_t flags
    uint16_t next


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


cdef inline int fault(FrRing *ring, int status, uint32_t index, uint64_t value) noexcept nogil:
    ring.fault_index = index
    ring.fault_value = value
    return status


cdef inline void load_descriptor(const FrRing *ring, const Table *table, uint32_t index, Descriptor *d) noexcept nogil:
    """The only load of a descriptor; field by field, because a wide load stalls behind the driver's narrow stores."""
    cdef uint8_t copy[FR_DESC_SIZE]
    cdef const uint8_t *at
    if fr_unlikely(table.hva == NULL):
        copy_from_ram(ring.memory, table.gpa + index * FR_DESC_SIZE, copy, FR_DESC_SIZE)
        at = copy
    else:
        at = table.hva + index * FR_DESC_SIZE
    d.addr = fr_load_u64(at)
    d.len = fr_load_u32(at + 8)
    d.flags = fr_load_u16(at + 12)
    d.next = fr_load_u16(at + 14)


cdef inline int enter_indirect(FrRing *ring, Table *table, uint32_t index, const Descriptor *d) noexcept nogil:
    """Switch to the table that *d* refers to. WRITE in *d* means nothing (2.7.5.3.2), alignment is not asked for."""
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


cdef int add_crossing(FrRing *ring, FrSegment *segments, uint32_t room, uint64_t gpa, uint32_t length) noexcept nogil:
    """Make the segments of a buffer that its first region does not hold; returns how many, or a negative status."""
    cdef uint64_t contiguous
    cdef void *hva
    cdef uint32_t n = 0
    while True:
        hva = fr_translate(ring.memory, gpa, &contiguous)
        if hva == NULL:  # asked before the room: a ring's own array holds every valid chain, so this is the driver's
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
        parts.in_bytes += d.len
    else:
        if fr_unlikely(parts.in_bytes != 0):  # 2.7.4.2: readable ones come first
            return fault(ring, FR_E_ORDER, at, d.flags)
        parts.out_bytes += d.len
        parts.n_out += n_added
    parts.n += n_added
    return FR_OK


cdef inline int walk(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    """Follow the chain from its head; returns its number of segments, or a negative status.

    *budget* counts descriptors down, so that a loop ends: a chain without one passes each entry of its table once, and
    through an indirect table at most max_descriptors in all.
    """
    cdef Table table
    cdef Descriptor d
    cdef Parts parts
    cdef uint32_t index = chain.head
    cdef uint32_t budget = ring.size
    cdef uint32_t n_walked = 0
    cdef int status
    table.hva, table.gpa, table.n_entries, table.indirect = ring.desc, 0, ring.size, False
    parts.segments, parts.n, parts.n_out, parts.out_bytes, parts.in_bytes = segments, 0, 0, 0, 0
    while True:
        load_descriptor(ring, &table, index, &d)
        if d.flags & FR_DESC_F_INDIRECT:
            status = enter_indirect(ring, &table, index, &d)
            if fr_unlikely(status != FR_OK):
                return status
            index = 0
            budget = min(table.n_entries, ring.max_descriptors - n_walked)
            continue
        if fr_unlikely(budget == 0):
            return fault(ring, FR_E_TOO_LONG, index, n_walked)
        budget -= 1
        n_walked += 1
        status = add_buffer(ring, &parts, room, index, &d)
        if fr_unlikely(status != FR_OK):
            return status
        if not d.flags & FR_DESC_F_NEXT:
            break
        if fr_unlikely(d.next >= table.n_entries):
            return fault(ring, FR_E_NEXT, index, d.next)
        index = d.next
    if fr_unlikely(parts.out_bytes + parts.in_bytes > UINT32_MAX):  # a used element's len has 32 bits
        return fault(ring, FR_E_TOTAL, chain.head, parts.out_bytes + parts.in_bytes)
    chain.segments = segments
    chain.n_out = parts.n_out
    chain.n_in = parts.n - parts.n_out
    chain.out_bytes = <uint32_t>parts.out_bytes
    chain.in_bytes = <uint32_t>parts.in_bytes
    return <int>parts.n


cdef inline int take(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    """Take the chain at next_avail; returns its number of segments, or a negative status with nothing taken."""
    cdef uint32_t slot = ring.next_avail & (ring.size - 1)
    cdef uint16_t head = fr_load_u16(ring.avail + 4 + 2 * slot)
    cdef int n_segments
    if fr_unlikely(head >= ring.size):
        return fault(ring, FR_E_HEAD, slot, head)
    # Without this a driver could have one chain worked on twice at a time, and any number of them in flight.
    if fr_unlikely(ring.in_flight[head]):
        return fault(ring, FR_E_IN_FLIGHT, slot, head)
    chain.head = head
    chain.position = ring.next_avail
    n_segments = walk(ring, chain, segments, room)
    if fr_unlikely(n_segments < 0):
        return n_segments
    ring.in_flight[head] = True
    ring.next_avail += 1
    return n_segments


cdef int fr_load_avail(FrRing *ring) noexcept nogil:
    # Acquire: what the driver wrote before it raised idx (entries, descriptors, buffers) is seen by all later loads.
    cdef uint16_t idx = fr_load_acquire_u16(ring.avail + 2)
    if <uint16_t>(idx - ring.next_avail) > ring.size:
        return fault(ring, FR_E_AVAIL_JUMP, idx, ring.next_avail)
    ring.seen_avail = idx
    return FR_OK


cdef inline int settle(FrRing *ring, int status) noexcept nogil:
    """A fault of the driver's breaks the ring for good; too small an array of the caller's does not."""
    if status < 0 and status != FR_E_ROOM:
        ring.status = status
    return status


cdef inline int look(FrRing *ring) noexcept nogil:
    """FR_OK when there is a chain to take. The driver's index is loaded only when all it showed last time is taken: the
    line it stands in travels between two cores."""
    cdef int status
    if ring.status != FR_OK:
        return ring.status
    if ring.next_avail != ring.seen_avail:
        return FR_OK
    status = settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.next_avail == ring.seen_avail else FR_OK


cdef int fr_pop_batch(FrRing *ring, FrBatch *batch, uint32_t limit) noexcept nogil:
    cdef FrSegment *segments = batch.segments
    cdef uint32_t room = batch.max_segments
    cdef FrChain *chain
    cdef int n_segments = 0
    cdef int status = look(ring)
    batch.n_chains = 0
    if status != FR_OK:
        return status
    limit = min(limit, batch.max_chains, <uint16_t>(ring.seen_avail - ring.next_avail))
    if limit == 0:
        return FR_EMPTY
    while batch.n_chains < limit:
        chain = &batch.chains[batch.n_chains]
        n_segments = take(ring, chain, segments, room)
        if fr_unlikely(n_segments < 0):
            break
        segments += n_segments
        room -= <uint32_t>n_segments
        batch.n_chains += 1
    return FR_OK if batch.n_chains > 0 else settle(ring, n_segments)


cdef int fr_pop(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    cdef FrBatch batch
    batch.chains, batch.max_chains = chain, 1
    batch.segments, batch.max_segments = segments, room
    return fr_pop_batch(ring, &batch, 1)


cdef int fr_unpop(FrRing *ring, const FrChain *chain) noexcept nogil:
    if chain.head >= ring.size or not ring.in_flight[chain.head]:
        return FR_E_NOT_IN_FLIGHT
    if <uint16_t>(chain.position + 1) != ring.next_avail:
        return FR_E_NOT_LAST
    ring.in_flight[chain.head] = False
    ring.next_avail = chain.position
    return FR_OK


# --- completion and notification --------------------------------------------------------------------------------------

cdef bint fr_publish(FrRing *ring) noexcept nogil:
    cdef uint16_t new = ring.next_used
    cdef uint16_t old = ring.published_used
    cdef uint16_t event
    if new == old:
        return False
    # Release: the driver that sees this idx also sees the elements and the data in the buffers (2.7.8.2).
    fr_store_release_u16(ring.used + 2, new)
    ring.published_used = new
    # Full fence between our store of idx and the load of its wish. The driver does the mirror image: it stores its wish
    # for an interrupt, fences, and looks at idx once more. Were our load to pass our store, both could read the old
    # value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    if not ring.event_idx:
        return not fr_load_u16(ring.avail) & FR_AVAIL_F_NO_INTERRUPT
    event = fr_load_u16(ring.avail + 4 + 2 * ring.size)
    # 2.7.10: whether idx passed event + 1 in this batch. At most size <= 2^15 elements, so the difference is exact.
    return <uint16_t>(new - event - 1) < <uint16_t>(new - old)


cdef void fr_disable_kicks(FrRing *ring) noexcept nogil:
    # With EVENT_IDX flags stays 0 (2.7.10.1) and the avail_event that the driver has passed keeps it quiet for us.
    if not ring.event_idx:
        fr_store_u16(ring.used, FR_USED_F_NO_NOTIFY)


cdef int fr_enable_kicks(FrRing *ring) noexcept nogil:
    cdef uint16_t seen = ring.seen_avail
    cdef int status
    if ring.status != FR_OK:
        return ring.status
    if ring.event_idx:
        fr_store_u16(ring.used + 4 + 8 * ring.size, seen)
    else:
        fr_store_u16(ring.used, 0)
    # Full fence between our wish for a kick and the last look at idx. The driver stores idx, fences, reads our wish.
    # Were our load to pass our store, it could read the old wish and send no kick while we read the old idx and sleep.
    fr_full_fence()
    status = settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.seen_avail == seen else FR_OK


# --- the funnel -------------------------------------------------------------------------------------------------------

cdef dict GUEST_FAULTS = {
    FR_E_AVAIL_JUMP: "avail.idx is {index}, which is more than the queue size from {value}, the next to take",
    FR_E_HEAD: "available ring entry {index} names descriptor {value}, outside the table",
    FR_E_IN_FLIGHT: "available ring entry {index} names descriptor {value}, whose chain is still in flight",
    FR_E_NEXT: "descriptor {index}: next is {value}, outside its table",
    FR_E_TOO_LONG: "descriptor {index}: the chain goes on after {value} descriptors, so it loops or is too long",
    FR_E_ORDER: "descriptor {index}: device-readable after a device-writable one",
    FR_E_ADDRESS: "descriptor {index}: the buffer at gpa {value:#x} leaves RAM",
    FR_E_TOTAL: "descriptor {index}: a chain of {value} bytes, more than 2^32 - 1",
    FR_E_INDIRECT_OFF: "descriptor {index}: indirect, which was not negotiated",
    FR_E_INDIRECT_NESTED: "descriptor {index} of an indirect table is indirect itself",
    FR_E_INDIRECT_NEXT: "descriptor {index}: flags {value:#x} have both INDIRECT and NEXT",
    FR_E_INDIRECT_LEN: "descriptor {index}: indirect table of {value} bytes, not a positive multiple of 16",
    FR_E_INDIRECT_ADDRESS: "descriptor {index}: indirect table not in RAM at gpa {value:#x}",
}
cdef dict CALLER_FAULTS = {
    FR_E_ROOM: "the segment array is too small for one chain",
    FR_E_NOT_IN_FLIGHT: "the chain is not in flight",
    FR_E_NOT_LAST: "only the chains popped last can be given back, in the order they were popped",
}


cdef int fr_raise(const FrRing *ring, int status) except -1 with gil:
    if status in CALLER_FAULTS:
        raise ValueError(CALLER_FAULTS[status])
    raise GuestError(GUEST_FAULTS[status].format(index=ring.fault_index, value=ring.fault_value))


# --- Python's view ----------------------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class MemoryMap:
    """Guest RAM as the rings see it: up to eight regions, each the gpa of its first byte and a writable buffer of ours.

    Holds an export of every buffer, so that closing a mapping too early raises BufferError instead of leaving a
    dangling pointer. Raises ValueError for too many, empty or overlapping regions.
    """

    def __cinit__(self, regions):
        self.closed = False
        for gpa, buffer in regions:
            self.add_region(gpa, buffer)
        self.memory.n_joints = count_joints(&self.memory)

    def __dealloc__(self):
        self.release_exports()

    cdef int add_region(self, object gpa, object buffer) except -1:
        cdef uint32_t i = self.memory.n_regions
        cdef FrRegion *region = &self.memory.regions[i]
        if i == FR_MAX_REGIONS:
            raise ValueError(f"more than {FR_MAX_REGIONS} memory regions")
        PyObject_GetBuffer(buffer, &self.exports[i], PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.memory.n_regions += 1  # from here on release_exports takes care of it
        region.hva = <uint8_t *>self.exports[i].buf
        region.size = self.exports[i].len
        if region.size == 0 or not 0 <= gpa <= 2**64 - region.size:
            raise ValueError(f"memory region of {region.size:#x} bytes at gpa {gpa:#x}: empty or not within 64 bits")
        region.gpa = gpa
        for k in range(i):
            # Same wrapping comparison as in fr_translate, from both sides: neither starts within the other.
            if (region.gpa - self.memory.regions[k].gpa < self.memory.regions[k].size
                    or self.memory.regions[k].gpa - region.gpa < region.size):
                raise ValueError(f"memory regions at {region.gpa:#x} and {self.memory.regions[k].gpa:#x} overlap")
        return 0

    cdef void release_exports(self) noexcept:
        while self.memory.n_regions > 0:
            self.memory.n_regions -= 1
            PyBuffer_Release(&self.exports[self.memory.n_regions])

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
        """Copy *data* to *gpa*, across touching regions if need be; all or nothing. Raises GuestError outside RAM."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            copy_to_ram(&self.memory, self.checked(gpa, view.len), <const uint8_t *>view.buf, view.len)
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
cdef class SplitRing:
    """Device side of one split virtqueue, whose three parts stand at guest addresses *desc*, *avail* and *used*.

    *size* is a power of two up to 32768. *next_avail* is where both indices start: 0, or what a saved queue had
    reached. Each part must lie in one region. Raises GuestError for a bad size, alignment or address of the driver's.

    One thread at a time uses a ring. After the driver broke the protocol the ring stays broken: every call but
    ``close`` raises that GuestError again.
    """

    def __cinit__(self, MemoryMap memory not None, *, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used,
                  bint event_idx=False, bint indirect=False, uint16_t next_avail=0):
        cdef FrRing *ring = &self.ring
        self.closed = True
        if memory.closed:
            raise ValueError("the memory map is closed")
        if size == 0 or size > MAX_SIZE or size & (size - 1) != 0:
            raise GuestError(f"queue size {size} is not a power of two up to {MAX_SIZE}")
        ring.memory = &memory.memory
        ring.size = size
        ring.desc = part(ring.memory, "descriptor table", desc, FR_DESC_SIZE * size, 16)
        ring.avail = part(ring.memory, "available ring", avail, 4 + 2 * size + 2 * event_idx, 2)
        ring.used = part(ring.memory, "used ring", used, 4 + 8 * size + 2 * event_idx, 4)
        ring.event_idx = event_idx
        ring.indirect = indirect
        ring.next_avail = ring.seen_avail = ring.next_used = ring.published_used = next_avail
        ring.max_descriptors = max(size, <uint32_t>FR_MAX_DESCRIPTORS) if indirect else size
        self.batch.max_chains = min(size, <uint32_t>FR_MAX_BATCH)
        # Each joint of regions can lie within every buffer of a chain.
        self.batch.max_segments = ring.max_descriptors * (1 + memory.memory.n_joints)
        ring.in_flight = <uint8_t *>PyMem_Calloc(size, 1)
        self.batch.chains = <FrChain *>PyMem_Calloc(self.batch.max_chains, sizeof(FrChain))
        self.batch.segments = <FrSegment *>PyMem_Calloc(self.batch.max_segments, sizeof(FrSegment))
        if ring.in_flight == NULL or self.batch.chains == NULL or self.batch.segments == NULL:
            raise MemoryError()
        self.memory = memory
        memory.users += 1
        self.closed = False

    def __dealloc__(self):
        PyMem_Free(self.ring.in_flight)
        PyMem_Free(self.batch.chains)
        PyMem_Free(self.batch.segments)
        if self.memory is not None and not self.closed:
            self.memory.users -= 1

    cdef inline int check(self) except -1:
        """Refuse a ring that is closed, broken or in another thread's hands."""
        if self.closed:
            raise ValueError("the ring is closed")
        if self.walking:
            raise RuntimeError("the ring is in use by another thread")
        if self.ring.status != FR_OK:
            fr_raise(&self.ring, self.ring.status)
        return 0

    @property
    def size(self):
        """Number of descriptors."""
        return self.ring.size

    @property
    def next_avail(self):
        """Index (16 bits, wrapping) of the available entry to take next."""
        return self.ring.next_avail

    @property
    def used_idx(self):
        """Index (16 bits, wrapping) that the next pushed chain gets in the used ring."""
        return self.ring.next_used

    @property
    def in_flight(self):
        """Chains popped and neither pushed nor given back."""
        return <uint16_t>(self.ring.next_avail - self.ring.next_used)  # both began at the same index

    @property
    def broken(self):
        """Whether the driver broke the protocol, which only a reset of the queue mends."""
        return self.ring.status != FR_OK

    def avail_idx(self):
        """The driver's index, freshly loaded. Raises GuestError when it is out of reach."""
        self.check()
        cdef int status = settle(&self.ring, fr_load_avail(&self.ring))
        if status < 0:
            fr_raise(&self.ring, status)
        return self.ring.seen_avail

    def pop_batch(self, limit=64):
        """Take up to *limit* chains, in the order they were made available; [] when there is none.

        Fewer than *limit* does not mean that no more are there: one call looks at avail.idx at most once and takes at
        most 256. Raises GuestError for a malformed chain or index; the chains before it are returned first.
        """
        self.check()
        if limit <= 0:
            raise ValueError(f"limit {limit} is not positive")
        cdef uint32_t at_most = min(limit, FR_MAX_BATCH)
        cdef int status
        self.walking = True
        with nogil:
            status = fr_pop_batch(&self.ring, &self.batch, at_most)
        self.walking = False
        if status < 0:
            fr_raise(&self.ring, status)
        if status == FR_EMPTY:
            return []
        return [new_chain(self, &self.batch.chains[i]) for i in range(self.batch.n_chains)]

    def unpop(self, chains):
        """Give the chains popped last back unprocessed, in the order they were popped; the next pop finds them again.

        Raises ValueError, and changes nothing, when they are not exactly the last ones.
        """
        self.check()
        cdef Chain chain
        cdef list given = list(chains)
        cdef uint16_t position = self.ring.next_avail - <uint16_t>len(given)
        for chain in given:
            if chain.ring is not self or chain.done or chain.chain.position != position:
                raise ValueError(CALLER_FAULTS[FR_E_NOT_LAST])
            position += 1
        for chain in reversed(given):
            chain.finish()
            fr_unpop(&self.ring, &chain.chain)

    def push(self, Chain chain not None, written=None):
        """Store the used element of *chain*, of which *written* bytes (default: ``chain.written``) were filled in.

        The driver sees it at the next ``publish``. The chain and the views it handed out are dead afterwards; slices
        made of the views are not, so keep none: their memory stays mapped, but it is the driver's. Raises
        ValueError for a chain of another ring, a second push or more bytes than are writable; BufferError while
        somebody still uses one of its views.
        """
        self.check()
        cdef object n_bytes = chain.filled if written is None else written
        if chain.ring is not self or chain.done:
            raise ValueError(CALLER_FAULTS[FR_E_NOT_IN_FLIGHT])
        if not 0 <= n_bytes <= chain.chain.in_bytes:
            raise ValueError(f"{n_bytes} bytes written to a chain with {chain.chain.in_bytes} writable ones")
        chain.finish()
        fr_push(&self.ring, chain.chain.head, n_bytes)

    def publish(self):
        """Show the driver everything pushed. True when it wants an interrupt for that; False if nothing was pushed."""
        self.check()
        return fr_publish(&self.ring)

    def disable_kicks(self):
        """Tell the driver that we look at the ring anyway. A hint: kicks may still come."""
        self.check()
        fr_disable_kicks(&self.ring)

    def enable_kicks(self):
        """Ask for a kick at the next chain. True when more came since avail.idx was last looked at: look again."""
        self.check()
        cdef int status = fr_enable_kicks(&self.ring)
        if status < 0:
            fr_raise(&self.ring, status)
        return status == FR_OK

    def close(self):
        """Let go of the memory; again is harmless. Chains not pushed die; their views stay valid until released."""
        if self.closed:
            return
        if self.walking:
            raise BufferError("the ring is in use by another thread")
        self.closed = True
        self.memory.users -= 1


cdef uint8_t *part(const FrMemory *memory, str name, uint64_t gpa, uint64_t length, uint32_t alignment) except NULL:
    """Where a part of a ring stands, after the checks of 2.7 (table of alignments)."""
    cdef uint64_t room
    cdef void *hva = fr_translate(memory, gpa, &room)
    if gpa % alignment != 0:
        raise GuestError(f"{name} at gpa {gpa:#x} is not aligned to {alignment} bytes")
    if hva == NULL or room < length:
        raise GuestError(f"{name} of {length:#x} bytes at gpa {gpa:#x} is not within one region of RAM")
    return <uint8_t *>hva


cdef inline Chain new_chain(SplitRing ring, const FrChain *source):
    """Copy a chain out of the batch, whose arrays the next batch reuses."""
    cdef Chain self = Chain.__new__(Chain)
    cdef size_t n_segments = source.n_out + source.n_in
    self.chain = source[0]
    self.chain.segments = self.few
    if n_segments > FR_INLINE_SEGMENTS:
        self.chain.segments = <FrSegment *>PyMem_Malloc(n_segments * sizeof(FrSegment))
        if self.chain.segments == NULL:
            raise MemoryError()
    memcpy(self.chain.segments, source.segments, n_segments * sizeof(FrSegment))
    self.ring = ring
    return self


cdef void copy_segments(FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) noexcept nogil:
    """Copy between *host* and the segments from *offset* on; the caller has checked that they are long enough."""
    cdef size_t step
    while length > 0:
        if offset >= segments.len:
            offset -= segments.len
            segments += 1
            continue
        step = min(length, segments.len - offset)
        if to_guest:
            memmove(<uint8_t *>segments.hva + offset, host, step)  # the source may be guest memory itself
        else:
            memcpy(host, <uint8_t *>segments.hva + offset, step)
        host += step
        length -= step
        offset += step


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Chain:
    """One descriptor chain: a device-readable part, then a device-writable part, each a run of bytes to the device.

    How the driver cut them into descriptors is not to be relied on (2.6.4), so nothing here tells. Every segment was
    translated and checked when the chain was popped. Dead, that is every access raises ValueError, once it is pushed or
    given back or its ring is closed.
    """

    def __cinit__(self):
        self.done = False

    def __dealloc__(self):
        if self.chain.segments != self.few:
            PyMem_Free(self.chain.segments)

    cdef inline int check(self) except -1:
        if self.ring is None or self.done or self.ring.closed:
            raise ValueError("the chain is no longer in flight")
        return 0

    cdef int finish(self) except -1:
        """End the chain's life. The buffers are the driver's from now on, so the views of them go first."""
        if self.views is not None:
            for view in self.views:
                view.release()
            self.views = None
        self.done = True
        return 0

    cdef int copy(self, FrSegment *segments, size_t offset, uint8_t *host, size_t length, bint to_guest) except -1:
        if length < NOGIL_COPY_BYTES:
            copy_segments(segments, offset, host, length, to_guest)
            return 0
        cdef MemoryMap memory = self.ring.memory
        memory.users += 1  # another thread may close the ring meanwhile
        with nogil:
            copy_segments(segments, offset, host, length, to_guest)
        memory.users -= 1
        return 0

    @property
    def head(self):
        """Index of the first descriptor: the chain's name in the used ring."""
        return self.chain.head

    @property
    def readable_bytes(self):
        """Length of the device-readable part."""
        return self.chain.out_bytes

    @property
    def writable_bytes(self):
        """Length of the device-writable part."""
        return self.chain.in_bytes

    @property
    def read_offset(self):
        """Where in the readable part ``read`` goes on."""
        return self.cursor

    @property
    def written(self):
        """Bytes from the start of the writable part filled in: where ``write`` goes on, what ``push`` reports."""
        return self.filled

    def read(self, Py_ssize_t length=-1):
        """The next *length* bytes of the readable part, fewer at its end; -1 for the rest.

        The guest chooses how long the rest is, up to 4 GiB: give a length.
        """
        self.check()
        cdef uint32_t left = self.chain.out_bytes - self.cursor
        cdef uint32_t n_bytes = left if length < 0 or length > left else <uint32_t>length
        cdef uint32_t start = self.cursor
        cdef bytes data = PyBytes_FromStringAndSize(NULL, n_bytes)
        self.cursor += n_bytes
        self.copy(self.chain.segments, start, <uint8_t *>PyBytes_AS_STRING(data), n_bytes, False)
        return data

    def write(self, data):
        """Copy *data* to the next bytes of the writable part; returns how many fitted."""
        cdef Py_buffer view
        cdef uint32_t start, left, n_bytes
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.check()  # only now: an exporter may run code of its own
            start = self.filled
            left = self.chain.in_bytes - start
            n_bytes = left if view.len > left else <uint32_t>view.len
            self.filled += n_bytes
            self.copy(self.chain.segments + self.chain.n_out, start, <uint8_t *>view.buf, n_bytes, True)
        finally:
            PyBuffer_Release(&view)
        return n_bytes

    def write_at(self, offset, data):
        """Copy *data* to *offset* of the writable part, such as a status byte at its end.

        ``written`` then reaches to its end at least: fill in what lies before, or push with a number of your own.
        Raises ValueError when it does not fit.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.check()
            if not 0 <= offset <= self.chain.in_bytes - view.len:
                raise ValueError(f"{view.len} bytes at {offset} are not within {self.chain.in_bytes} writable ones")
            self.copy(self.chain.segments + self.chain.n_out, offset, <uint8_t *>view.buf, view.len, True)
            self.filled = max(self.filled, <uint32_t>(offset + view.len))
        finally:
            PyBuffer_Release(&view)

    def advance(self, n):
        """Count *n* bytes from ``written`` on as filled in through ``writable``. Raises ValueError past the end."""
        self.check()
        if not 0 <= n <= self.chain.in_bytes - self.filled:
            raise ValueError(f"cannot advance by {n}: {self.filled} of {self.chain.in_bytes} bytes are written")
        self.filled += <uint32_t>n

    def readable(self, offset=0, length=-1):
        """Read-only views of the readable part, from *offset* on (not from the cursor), for writev.

        *length* -1 means the rest. They end with the chain: push releases them.
        """
        self.check()
        return self.windows(self.chain.segments, self.chain.n_out, self.chain.out_bytes, offset, length, True)

    def writable(self, offset=0, length=-1):
        """Views of the writable part, from *offset* on (give ``written`` to go on), for readv; then call ``advance``.

        *length* -1 means the rest. They end with the chain: push releases them.
        """
        self.check()
        cdef FrSegment *segments = self.chain.segments + self.chain.n_out
        return self.windows(segments, self.chain.n_in, self.chain.in_bytes, offset, length, False)

    cdef list windows(self, FrSegment *segments, uint32_t n, uint32_t total, object offset, object length, bint ro):
        if offset < 0 or length < -1:
            raise ValueError(f"offset {offset} or length {length} is negative")
        cdef size_t skip = min(offset, total)
        cdef size_t left = total - skip if length == -1 else min(length, total - skip)
        cdef size_t step
        cdef uint32_t i
        cdef list views = []
        if self.views is None:
            self.views = []
        for i in range(n):
            if left == 0:
                break
            if skip >= segments[i].len:
                skip -= segments[i].len
                continue
            step = min(left, segments[i].len - skip)
            view = new_view(self.ring.memory, <uint8_t *>segments[i].hva + skip, step, ro)
            views.append(view)
            self.views.append(view)
            left -= step
            skip = 0
        return views


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


cdef inline object new_view(MemoryMap memory, void *hva, size_t length, bint readonly):
    cdef _Window window = _Window.__new__(_Window)
    memory.users += 1
    window.memory = memory
    window.hva = hva
    window.length = length
    window.readonly = readonly
    return PyMemoryView_FromObject(window)
