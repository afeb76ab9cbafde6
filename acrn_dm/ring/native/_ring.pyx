# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Virtqueues as Python sees them, device side: what rings of both formats do alike, and a class for each format."""

cimport cython
from acrn_dm.ring.native._buffers cimport FR_DESC_SIZE, FR_MAX_BATCH, FR_MAX_DESCRIPTORS, settle
from acrn_dm.ring.native._chain cimport Chain, new_chain
from acrn_dm.ring.native._memory cimport FrMemory, FrSegment, fr_translate
from acrn_dm.ring.native._records cimport FR_OVERLAID, FR_PACKED, FrChain, FrVirtqueue
from acrn_dm.ring.native._status cimport FR_E_NOT_IN_FLIGHT, FR_E_NOT_LAST, FR_EMPTY, FR_OK, raise_status
from acrn_dm.ring.native._virtqueue cimport (
    vq_disable_kicks, vq_enable_kicks, vq_ends_at, vq_hold, vq_look, vq_next, vq_pop_batch, vq_publish, vq_push,
    vq_raise, vq_release, vq_ring, vq_unpop,
)
from acrn_dm.ring.native.packed._layout cimport FR_LENGTH, FR_N_IDS, FR_OFF
from acrn_dm.ring.native.packed._packed cimport fp_begin, fp_in_flight, fp_next_used
from acrn_dm.ring.native.split._split cimport FR_N_HEADS, fr_load_avail
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from acrn_dm.ring.native._memory cimport FR_MAX_REGIONS, fr_writable

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import MAX_QUEUE_SIZE, RingLayout, is_queue_size
from acrn_dm.ring.packed.layout import packed_parts
from acrn_dm.ring.position import RingPosition

# Slot 0, wrap counter 1 (2.8.1).
cdef enum:
    FIRST = 0x8000


cdef inline int check(NativeRing self) except -1:
    """Refuse a ring that is closed, broken or in another thread's hands."""
    cdef int status
    if self.closed:
        raise ValueError("the ring is closed")
    if self.walking:
        raise RuntimeError("the ring is in use by another thread")
    status = vq_ring(&self.queue).status
    if status != FR_OK:
        vq_raise(&self.queue, status)
    return 0


@cython.no_gc
cdef class NativeRing(RingBase):
    """The device side of a virtqueue, whatever its format: chains are taken, returned and shown, kicks asked for.

    One thread at a time uses a ring. After the driver broke the protocol the ring stays broken: every call but
    ``close`` raises that GuestError again.
    """

    def __dealloc__(self):
        PyMem_Free(self.batch.chains)
        PyMem_Free(self.batch.segments)

    cdef int begin(self, FrRing *ring, MemoryMap memory, object parts, bint event_idx, bint indirect) except -1:
        """Fill in what the formats share; *parts* are checked."""
        if memory.closed:
            raise ValueError("the memory map is closed")
        ring.memory = &memory.memory
        ring.desc = place(ring.memory, parts[0])
        ring.avail = place(ring.memory, parts[1])
        ring.used = place(ring.memory, parts[2])
        ring.event_idx = event_idx
        ring.indirect = indirect
        ring.max_descriptors = max(ring.size, <uint32_t>FR_MAX_DESCRIPTORS) if indirect else ring.size
        return self.make_room(ring)

    cdef int make_room(self, FrRing *ring) except -1:
        """The arrays of a batch: each joint of regions can lie within every buffer of a chain where there are few, and
        in one of them, as those do not overlap, where there are many.
        """
        self.batch.max_chains = min(ring.size, <uint32_t>FR_MAX_BATCH)
        self.batch.max_segments = ring.max_descriptors * (1 + min(ring.memory.n_joints, <uint32_t>FR_MAX_REGIONS))
        self.batch.max_segments += ring.memory.n_joints
        ring.max_segments = self.batch.max_segments
        self.batch.chains = <FrChain *>PyMem_Calloc(self.batch.max_chains, sizeof(FrChain))
        self.batch.segments = <FrSegment *>PyMem_Calloc(self.batch.max_segments, sizeof(FrSegment))
        if self.batch.chains == NULL or self.batch.segments == NULL:
            raise MemoryError()
        return 0

    @property
    def size(self):
        """Number of descriptors."""
        return vq_ring(&self.queue).size

    @property
    def broken(self):
        """Whether the driver broke the protocol, which only a reset of the queue mends."""
        return vq_ring(&self.queue).status != FR_OK

    @property
    def next_avail(self):
        """Where the next chain is taken: an index modulo 2^16, or a slot with its wrap counter in bit 15."""
        return vq_next(&self.queue)

    def waiting(self):
        """Whether chains are available that were not taken, freshly looked at. Raises GuestError for a broken ring."""
        check(self)
        cdef int status = vq_look(&self.queue)
        if status < 0:
            vq_raise(&self.queue, status)
        return status == FR_OK

    def pop_batch(self, limit=64):
        """Take up to *limit* chains, in the order they were made available; [] when there is none.

        Fewer than *limit* does not mean that no more are there: one call takes at most 256. Raises GuestError for a
        malformed chain or index; the chains before it are returned first.
        """
        check(self)
        if limit <= 0:
            raise ValueError(f"limit {limit} is not positive")
        cdef uint32_t at_most = min(limit, FR_MAX_BATCH)
        cdef int status
        self.walking = True
        with nogil:
            status = vq_pop_batch(&self.queue, &self.batch, at_most)
        self.walking = False
        if status < 0:
            vq_raise(&self.queue, status)
        if status == FR_EMPTY:
            return []
        return [new_chain(self, &self.batch.chains[i]) for i in range(self.batch.n_chains)]

    def unpop(self, chains):
        """Give the chains popped last back unprocessed, in the order they were popped; the next pop finds them again.

        Raises ValueError, and changes nothing, when they are not exactly the last ones.
        """
        check(self)
        cdef Chain chain
        cdef list given = list(chains)
        cdef uint16_t end = vq_next(&self.queue)
        for chain in reversed(given):
            if chain.ring is not self or chain.done or not vq_ends_at(&self.queue, &chain.chain, &end):
                raise_status(FR_E_NOT_LAST, 0, 0)
        for chain in reversed(given):
            chain.finish()
            vq_unpop(&self.queue, &chain.chain)

    def push(self, Chain chain not None, written=None):
        """Store the used element of *chain*, of which *written* bytes (default: ``chain.written``) were filled in.

        The driver sees it at the next ``publish``. The chain and the views it handed out are dead afterwards; slices
        made of the views are not, so keep none: their memory stays mapped, but it is the driver's. Raises
        ValueError for a chain of another ring, a second push or more bytes than are writable; BufferError while
        somebody still uses one of its views.
        """
        check(self)
        cdef object n_bytes = chain.filled if written is None else written
        if chain.ring is not self or chain.done:
            raise_status(FR_E_NOT_IN_FLIGHT, 0, 0)
        if not 0 <= n_bytes <= chain.chain.in_bytes:
            raise ValueError(f"{n_bytes} bytes written to a chain with {chain.chain.in_bytes} writable ones")
        chain.finish()
        vq_push(&self.queue, chain.chain.head, n_bytes)

    def publish(self):
        """Show the driver everything pushed. True when it wants an interrupt for that; False if nothing was pushed."""
        check(self)
        return vq_publish(&self.queue)

    def hold(self):
        """Show the driver everything pushed, its interrupt held back until ``release``: True while it has one to get.
        """
        check(self)
        return vq_hold(&self.queue)

    def release(self):
        """Hold no interrupt back any more. True when the driver, asked anew, still wants what was held back."""
        check(self)
        return vq_release(&self.queue)

    def disable_kicks(self):
        """Tell the driver that we look at the ring anyway. A hint: kicks may still come."""
        check(self)
        vq_disable_kicks(&self.queue)

    def enable_kicks(self):
        """Ask for a kick at the next chain. True when more came that were not seen: look again."""
        check(self)
        cdef int status = vq_enable_kicks(&self.queue)
        if status < 0:
            vq_raise(&self.queue, status)
        return status == FR_OK

    def close(self):
        """Let go of the memory; again is harmless. Chains not pushed die; their views stay valid until released."""
        if self.closed:
            return
        if self.walking:
            raise BufferError("the ring is in use by another thread")
        RingBase.close(self)
        while self.queue.kind == FR_OVERLAID:
            self.take_off()

    cdef int lay(self, FrOverlay *overlay, object owner) except -1:
        """Have *overlay*, of *owner*, stand before the ring and what stands there, until ``take_off`` or ``close``."""
        overlay.under = self.queue
        self.queue.kind, self.queue.overlay = FR_OVERLAID, overlay
        owner.below, self.overlay = self.overlay, owner
        return 0

    cdef int take_off(self) except -1:
        """Take away what stands before everything else, and close its owner."""
        cdef FrVirtqueue under = self.queue.overlay.under
        cdef object owner = self.overlay
        self.queue, self.overlay = under, owner.below
        owner.below = None
        owner.close()
        return 0

    @property
    def native(self):
        """This ring, for whoever has one that stands before it."""
        return self

    @property
    def overlaid(self):
        """Whether something stands before it in C."""
        return self.queue.kind == FR_OVERLAID


@cython.final
@cython.no_gc
cdef class SplitRing(NativeRing):
    """Device side of one split virtqueue, whose three parts stand at guest addresses *desc*, *avail* and *used*.

    *size* is a power of two up to 32768. *next_avail* is where both indices start: 0, or what a saved queue had
    reached. Each part must lie in one region. Raises GuestError for a bad size, alignment or address of the driver's.
    """

    def __cinit__(self, MemoryMap memory not None, *, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used,
                  bint event_idx=False, bint indirect=False, uint16_t next_avail=0):
        cdef FrRing *ring = &self.ring
        if not is_queue_size(size):
            raise GuestError(f"queue size {size} is not a power of two up to {MAX_QUEUE_SIZE}")
        self.queue.split = ring
        ring.size = size
        parts = RingLayout(size=size, desc=desc, avail=avail, used=used).parts(event_idx=event_idx)
        self.begin(ring, memory, parts, event_idx, indirect)
        ring.next_avail = ring.seen_avail = ring.next_used = ring.published_used = next_avail
        ring.mask = size - 1
        ring.in_flight = <uint8_t *>PyMem_Calloc(FR_N_HEADS, 1)  # whose pages come with the heads used
        if ring.in_flight == NULL:
            raise MemoryError()
        self.open(memory)

    def __dealloc__(self):
        PyMem_Free(self.ring.in_flight)

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

    def descriptors(self, Chain chain not None):
        """Nothing: the table is the driver's, and keeps what stands in it until the chain is returned."""
        return b""

    def avail_idx(self):
        """The driver's index, freshly loaded. Raises GuestError when it is out of reach."""
        check(self)
        cdef int status = settle(&self.ring, fr_load_avail(&self.ring))
        if status < 0:
            vq_raise(&self.queue, status)
        return self.ring.seen_avail


@cython.final
@cython.no_gc
cdef class PackedRing(NativeRing):
    """Device side of one packed virtqueue: its descriptor ring at guest address *desc*, the event suppression
    structures of driver and device at *driver* and *device*.

    *size* is any number up to 32768. *next_avail* and *next_used* are where both sides start, slot and wrap counter in
    bit 15; what lies between them somebody else has taken. Each part must lie in one region. Raises GuestError for a
    bad size, alignment, address or position.
    """

    def __cinit__(self, MemoryMap memory not None, *, uint32_t size, uint64_t desc, uint64_t driver, uint64_t device,
                  bint event_idx=False, bint indirect=False, uint16_t next_avail=FIRST, uint16_t next_used=FIRST):
        cdef FrPacked *packed = &self.packed
        if not 0 < size <= MAX_QUEUE_SIZE:
            raise GuestError(f"queue size {size} is not a number up to {MAX_QUEUE_SIZE}")
        self.queue.kind = FR_PACKED
        self.queue.packed_ring = packed
        packed.ring.size = size
        if not fp_begin(packed, next_avail, next_used):
            raise GuestError(f"positions {next_avail:#x} and {next_used:#x} are none of a packed ring of {size}")
        parts = packed_parts(RingLayout(size=size, desc=desc, avail=driver, used=device))
        self.begin(&packed.ring, memory, parts, event_idx, indirect)
        packed.lengths = <uint32_t *>PyMem_Calloc(FR_N_IDS, sizeof(uint32_t))  # whose pages come with the ids used
        if packed.lengths == NULL:
            raise MemoryError()
        self.open(memory)

    def __dealloc__(self):
        PyMem_Free(self.packed.lengths)

    @property
    def position(self):
        """Where whoever serves the ring next begins, on both sides: what is in flight is taken again."""
        cdef uint32_t at = fp_next_used(&self.packed)
        return RingPosition(at | at << 16)

    @property
    def in_flight(self):
        """Chains popped and neither pushed nor given back."""
        return fp_in_flight(&self.packed)

    def descriptors(self, Chain chain not None):
        """Those of the ring that *chain* has, as they are now. They are good until a chain is pushed, which may write
        over any of them. Raises ValueError for a chain that is not in flight here.
        """
        check(self)
        if chain.ring is not self or chain.done:
            raise_status(FR_E_NOT_IN_FLIGHT, 0, 0)
        cdef uint32_t n = self.packed.lengths[chain.chain.head] & FR_LENGTH
        cdef uint32_t slot = chain.chain.position & FR_OFF
        cdef uint32_t before_end = min(n, self.packed.ring.size - slot)
        cdef const char *ring = <const char *>self.packed.ring.desc
        return ring[slot * FR_DESC_SIZE:(slot + before_end) * FR_DESC_SIZE] + ring[:(n - before_end) * FR_DESC_SIZE]


cdef uint8_t *place(const FrMemory *memory, object part) except NULL:
    """Where a part of a ring stands, after the checks of 2.7 and 2.8.10.1 (tables of alignments)."""
    cdef uint64_t room
    cdef void *hva = fr_translate(memory, part.gpa, &room)
    if part.gpa % part.alignment != 0:
        raise GuestError(f"{part.name} at gpa {part.gpa:#x} is not aligned to {part.alignment} bytes")
    if hva == NULL or room < part.length or not fr_writable(memory, part.gpa, part.length):
        raise GuestError(f"{part.name} of {part.length:#x} bytes at gpa {part.gpa:#x} is not within one region of RAM")
    return <uint8_t *>hva
