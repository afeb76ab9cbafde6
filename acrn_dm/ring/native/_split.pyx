# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Split virtqueues of virtio 1.4 (2.7), device side: take chains, publish used elements, suppress notifications.

What it must not know: which device it serves, what was negotiated beyond two flags, who is kicked or interrupted.
"""

cimport cython
from acrn_dm.ring.native._atomics cimport (
    fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_store_release_u16, fr_store_u16, fr_unlikely,
)
from acrn_dm.ring.native._chain cimport Chain, new_chain
from acrn_dm.ring.native._layout cimport (
    FR_AVAIL_F_NO_INTERRUPT, FR_USED_F_NO_NOTIFY, avail_entry, avail_event, avail_flags, avail_idx, used_event,
    used_flags, used_idx,
)
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, MemoryMap, fr_translate
from acrn_dm.ring.native._status cimport (
    FR_E_AVAIL_JUMP, FR_E_HEAD, FR_E_IN_FLIGHT, FR_E_NOT_LAST, FR_E_ROOM, FR_EMPTY, raise_status,
)
from acrn_dm.ring.native._walk cimport fault, walk
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, RingLayout, is_queue_size
from acrn_dm.ring.position import RingPosition


cdef inline int take(FrRing *ring, FrChain *chain, FrSegment *segments, uint32_t room) noexcept nogil:
    """Take the chain at next_avail; returns its number of segments, or a negative status with nothing taken."""
    cdef uint32_t slot = ring.next_avail & (ring.size - 1)
    cdef uint16_t head = fr_load_u16(avail_entry(ring.avail, slot))
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
    cdef uint16_t idx = fr_load_acquire_u16(avail_idx(ring.avail))
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


cdef bint fr_publish(FrRing *ring) noexcept nogil:
    cdef uint16_t new = ring.next_used
    cdef uint16_t old = ring.published_used
    cdef uint16_t event
    if new == old:
        return False
    # Release: the driver that sees this idx also sees the elements and the data in the buffers (2.7.8.2).
    fr_store_release_u16(used_idx(ring.used), new)
    ring.published_used = new
    # Full fence between our store of idx and the load of its wish. The driver does the mirror image: it stores its wish
    # for an interrupt, fences, and looks at idx once more. Were our load to pass our store, both could read the old
    # value: we would send nothing, the driver would sleep, and this completion would never be noticed.
    fr_full_fence()
    if not ring.event_idx:
        return not fr_load_u16(avail_flags(ring.avail)) & FR_AVAIL_F_NO_INTERRUPT
    event = fr_load_u16(used_event(ring.avail, ring.size))
    # 2.7.10: whether idx passed event + 1 in this batch. At most size <= 2^15 elements, so the difference is exact.
    return <uint16_t>(new - event - 1) < <uint16_t>(new - old)


cdef void fr_disable_kicks(FrRing *ring) noexcept nogil:
    # With EVENT_IDX flags stays 0 (2.7.10.1) and the avail_event that the driver has passed keeps it quiet for us.
    if not ring.event_idx:
        fr_store_u16(used_flags(ring.used), FR_USED_F_NO_NOTIFY)


cdef int fr_enable_kicks(FrRing *ring) noexcept nogil:
    cdef uint16_t seen = ring.seen_avail
    cdef int status
    if ring.status != FR_OK:
        return ring.status
    if ring.event_idx:
        fr_store_u16(avail_event(ring.used, ring.size), seen)
    else:
        fr_store_u16(used_flags(ring.used), 0)
    # Full fence between our wish for a kick and the last look at idx. The driver stores idx, fences, reads our wish.
    # Were our load to pass our store, it could read the old wish and send no kick while we read the old idx and sleep.
    fr_full_fence()
    status = settle(ring, fr_load_avail(ring))
    if status != FR_OK:
        return status
    return FR_EMPTY if ring.seen_avail == seen else FR_OK


cdef int fr_raise(const FrRing *ring, int status) except -1 with gil:
    raise_status(status, ring.fault_index, ring.fault_value)


@cython.final
@cython.no_gc
cdef class SplitRing(RingBase):
    """Device side of one split virtqueue, whose three parts stand at guest addresses *desc*, *avail* and *used*.

    *size* is a power of two up to 32768. *next_avail* is where both indices start: 0, or what a saved queue had
    reached. Each part must lie in one region. Raises GuestError for a bad size, alignment or address of the driver's.

    One thread at a time uses a ring. After the driver broke the protocol the ring stays broken: every call but
    ``close`` raises that GuestError again.
    """

    def __cinit__(self, MemoryMap memory not None, *, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used,
                  bint event_idx=False, bint indirect=False, uint16_t next_avail=0):
        cdef FrRing *ring = &self.ring
        if memory.closed:
            raise ValueError("the memory map is closed")
        if not is_queue_size(size):
            raise GuestError(f"queue size {size} is not a power of two up to {MAX_QUEUE_SIZE}")
        parts = RingLayout(size=size, desc=desc, avail=avail, used=used).parts(event_idx=event_idx)
        ring.memory = &memory.memory
        ring.size = size
        ring.desc = place(ring.memory, parts[0])
        ring.avail = place(ring.memory, parts[1])
        ring.used = place(ring.memory, parts[2])
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
        self.queue.split = ring
        self.open(memory)

    def __dealloc__(self):
        PyMem_Free(self.ring.in_flight)
        PyMem_Free(self.batch.chains)
        PyMem_Free(self.batch.segments)

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
    def position(self):
        """Where whoever serves the ring next begins: what is in flight is taken again."""
        return RingPosition(self.ring.next_used)

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

    def waiting(self):
        """Whether chains are available that were not taken. Raises GuestError as ``avail_idx``."""
        return self.avail_idx() != self.ring.next_avail

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
                raise_status(FR_E_NOT_LAST, 0, 0)
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
            raise_status(FR_E_NOT_IN_FLIGHT, 0, 0)
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
        RingBase.close(self)


cdef uint8_t *place(const FrMemory *memory, object part) except NULL:
    """Where a part of a ring stands, after the checks of 2.7 (table of alignments)."""
    cdef uint64_t room
    cdef void *hva = fr_translate(memory, part.gpa, &room)
    if part.gpa % part.alignment != 0:
        raise GuestError(f"{part.name} at gpa {part.gpa:#x} is not aligned to {part.alignment} bytes")
    if hva == NULL or room < part.length:
        raise GuestError(f"{part.name} of {part.length:#x} bytes at gpa {part.gpa:#x} is not within one region of RAM")
    return <uint8_t *>hva
