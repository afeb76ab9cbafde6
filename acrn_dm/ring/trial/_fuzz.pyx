# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A fuzz target of the native rings: a string of bytes is what a hostile driver writes and when the device looks.

The first byte chooses format, features and size, each four bytes behind it are one step of either side. After each
step what the ring says of itself is checked; that it touches no other memory is for a sanitizer to see.
"""

from acrn_dm._fastring cimport (
    FR_E_NOT_IN_FLIGHT, FR_EMPTY, FR_OK, FrBatch, FrChain, FrSegment, FrVirtqueue, MemoryMap, RingBase,
    vq_disable_kicks, vq_enable_kicks, vq_look, vq_pop_batch, vq_publish, vq_push, vq_ring, vq_unpop,
)
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from acrn_dm._fastring import PackedRing, SplitRing

cdef enum:
    PAGE = 4096
    DESC_AT = 0x100
    AVAIL_AT = 0x240
    USED_AT = 0x280
    TABLE_AT = 0x800
    MOST = 16                   # descriptors, and so chains in flight
    KEPT = 8                    # segments of a chain that are touched

cdef uint64_t[16] GPAS = [
    0x400, TABLE_AT, PAGE - 1, PAGE, PAGE - 8, 2 * PAGE - 1, 2 * PAGE, 0x1_0000_0000, 0x1_0000_0000 + PAGE - 1,
    0x1_0000_0000 + PAGE, 0xFFFF_FFFF_FFFF_FFFF, 0, DESC_AT, USED_AT, 0x7FF, PAGE + 7,
]
cdef uint32_t[16] LENGTHS = [16, 0, 1, 4, 8, 17, 32, 48, 128, PAGE, 2 * PAGE, 0x7FFF_FFFF, 0xFFFF_FFFF, 64, 16384, 15]
cdef uint32_t[8] SIZES = [1, 2, 4, 8, 16, 3, 7, 12]


cdef struct Live:
    FrChain chain
    FrSegment[KEPT] segments


cdef class RingFuzz:
    """The target. It keeps guest memory between runs; each begins with memory that is all 0."""

    cdef MemoryMap _memory
    cdef object _keep
    cdef uint8_t *_ram[3]
    cdef FrVirtqueue *_queue
    cdef FrBatch _batch
    cdef FrChain _chains[MOST]
    cdef FrSegment _segments[4096]
    cdef Live _live[MOST]
    cdef uint32_t _n_live
    cdef uint32_t _size
    cdef uint32_t _cursor           # descriptors, or heads, that the driver has made available
    cdef bint _packed

    def __cinit__(self):
        self._keep = [bytearray(PAGE) for _ in range(3)]
        self._memory = MemoryMap(list(zip((0, PAGE, 0x1_0000_0000), self._keep)))
        for i in range(3):
            self._ram[i] = <uint8_t *>self._memory.memory.regions[i].hva

    def run(self, const uint8_t[::1] data):
        """Let *data* happen; returns 0, or the number of what the ring did wrong (the comments of ``_step``)."""
        if data.shape[0] == 0:
            return 0
        for i in range(3):
            memset(self._ram[i], 0, PAGE)
        cdef RingBase ring = self._make(data[0])
        cdef Py_ssize_t at = 1
        cdef int wrong = 0
        self._queue = ring.virtqueue()
        self._n_live = self._cursor = 0
        with nogil:
            while wrong == 0 and at + 4 <= data.shape[0]:
                wrong = self._step(data[at], data[at + 1], data[at + 2], data[at + 3])
                at += 4
        ring.close()
        return wrong

    cdef RingBase _make(self, uint8_t choice):
        cdef dict words = {"event_idx": bool(choice & 2), "indirect": bool(choice & 4)}
        self._packed = choice & 1
        self._size = SIZES[choice >> 3 & 7]
        if self._packed:
            return PackedRing(self._memory, size=self._size, desc=DESC_AT, driver=AVAIL_AT, device=USED_AT, **words)
        self._size = SIZES[min(choice >> 3 & 7, 4)]
        return SplitRing(self._memory, size=self._size, desc=DESC_AT, avail=AVAIL_AT, used=USED_AT, **words)

    cdef int _step(self, uint8_t op, uint8_t a, uint8_t b, uint8_t c) noexcept nogil:
        """One step; 0, or the number of what is wrong after it."""
        cdef int status
        op &= 15
        if op <= 2:
            self._offer(op, a, b, c)
        elif op == 3:
            self._descriptor(self._ram[0] + TABLE_AT + 16 * (a & 7), b, c, a >> 3, c & 0xC0)
        elif op == 4:
            self._ram[0][(a | b << 8) & (PAGE - 1)] = c
        elif op == 5:
            self._u16(AVAIL_AT, a | b << 8)
            self._u16(AVAIL_AT + (2 if self._packed else 4 + 2 * self._size), c)
        elif op == 6:
            self._jump(a)
        elif op <= 9:
            return self._pop(1 + (a & 7) if op > 7 else MOST)
        elif op == 10:
            return self._push(a, b)
        elif op == 11:
            vq_publish(self._queue)
        elif op == 12:
            status = vq_enable_kicks(self._queue)
            return 0 if status in (FR_OK, FR_EMPTY) or status == vq_ring(self._queue).status else 1
        elif op == 13:
            vq_disable_kicks(self._queue)
        elif op == 14:
            return self._touch(a, c) if b & 1 else self._unpop()
        else:
            vq_look(self._queue)
        return 0

    cdef void _u16(self, uint32_t at, uint32_t value) noexcept nogil:
        self._ram[0][at] = value & 0xFF
        self._ram[0][at + 1] = value >> 8 & 0xFF

    cdef void _descriptor(
        self, uint8_t *at, uint8_t where, uint8_t flags, uint32_t number, uint32_t high,
    ) noexcept nogil:
        """Place by the low half of *where*, length by the high half; *number* is next, or the buffer id."""
        cdef uint64_t gpa = GPAS[where & 15]
        cdef uint32_t length = LENGTHS[where >> 4]
        cdef uint16_t all_flags = (flags & 7) | (high << 1 & 0x80) | (high << 8 & 0x8000)
        cdef uint16_t named = <uint16_t>number
        cdef uint16_t last = all_flags
        if not self._packed:
            named, last = all_flags, <uint16_t>number
        memcpy(at, &gpa, 8)
        memcpy(at + 8, &length, 4)
        memcpy(at + 12, &named, 2)
        memcpy(at + 14, &last, 2)

    cdef void _offer(self, uint8_t op, uint8_t a, uint8_t b, uint8_t c) noexcept nogil:
        """A descriptor; by *op* 0 as it stands, by 1 or 2 made available, with a mark that is wrong by bit 6 or 7."""
        cdef uint32_t slot = (self._cursor if self._packed and op else a) % self._size
        cdef uint32_t lap = self._cursor // self._size & 1
        cdef uint32_t marks = 0x80 if lap else 0x40
        self._descriptor(self._ram[0] + DESC_AT + 16 * slot, b, c, c >> 3 & 7 if op < 2 else a, marks ^ (c & 0xC0))
        if op == 0:
            return
        if not self._packed:
            self._u16(AVAIL_AT + 4 + 2 * (self._cursor % self._size), slot)
            self._u16(AVAIL_AT + 2, self._cursor + 1)
        self._cursor += 1

    cdef void _jump(self, uint8_t a) noexcept nogil:
        """The driver's index, or the descriptor that it writes next, goes astray."""
        self._cursor += <uint32_t><int8_t>a
        if not self._packed:
            self._u16(AVAIL_AT + 2, self._cursor)

    cdef int _pop(self, uint32_t limit) noexcept nogil:
        cdef uint32_t i
        cdef int status, before = vq_ring(self._queue).status
        self._batch.chains, self._batch.max_chains = self._chains, MOST
        self._batch.segments, self._batch.max_segments = self._segments, 4096
        status = vq_pop_batch(self._queue, &self._batch, limit)
        if before != FR_OK:
            return 0 if status == before and self._batch.n_chains == 0 else 2  # a broken ring stays as it is
        if status < 0:
            return 0 if vq_ring(self._queue).status == status else 3
        if self._batch.n_chains > limit or self._n_live + self._batch.n_chains > self._size:
            return 4  # more chains than asked for, or than the ring has descriptors
        if (status == FR_EMPTY) != (self._batch.n_chains == 0):
            return 5
        for i in range(self._batch.n_chains):
            if not self._is_whole(&self._chains[i]):
                return 6  # lengths that are not the segments', or a segment outside RAM
            self._live[self._n_live].chain = self._chains[i]
            memcpy(self._live[self._n_live].segments, self._chains[i].segments,
                   min(<uint32_t>KEPT, self._chains[i].n_out + self._chains[i].n_in) * sizeof(FrSegment))
            self._n_live += 1
        return 0

    cdef bint _is_whole(self, const FrChain *chain) noexcept nogil:
        cdef uint64_t sums[2]
        cdef uint32_t i, region
        cdef size_t offset
        cdef bint inside
        sums[0] = sums[1] = 0
        for i in range(chain.n_out + chain.n_in):
            sums[i >= chain.n_out] += chain.segments[i].len
            inside = False
            for region in range(3):
                offset = <size_t>chain.segments[i].hva - <size_t>self._ram[region]
                inside |= offset < PAGE and chain.segments[i].len <= PAGE - offset
            if not inside or chain.segments[i].len == 0:
                return False
        return sums[0] == chain.out_bytes and sums[1] == chain.in_bytes

    cdef int _push(self, uint8_t which, uint8_t written) noexcept nogil:
        cdef uint32_t i
        cdef FrChain chain
        if self._n_live == 0:
            return 0 if vq_push(self._queue, which, written) == FR_E_NOT_IN_FLIGHT else 7
        i = which % self._n_live
        chain = self._live[i].chain
        if vq_push(self._queue, chain.head, min(<uint32_t>written, chain.in_bytes)) != FR_OK:
            return 8
        self._n_live -= 1
        self._live[i] = self._live[self._n_live]
        return 0 if vq_push(self._queue, chain.head, 0) == FR_E_NOT_IN_FLIGHT else 9  # twice

    cdef int _unpop(self) noexcept nogil:
        """The chain popped last, where that is the one kept last."""
        if self._n_live and vq_unpop(self._queue, &self._live[self._n_live - 1].chain) == FR_OK:
            self._n_live -= 1
        return 0

    cdef int _touch(self, uint8_t which, uint8_t value) noexcept nogil:
        """Every byte of a chain is used, as a device does: it may be the ring itself."""
        cdef uint32_t i, n
        cdef Live *live
        if self._n_live == 0:
            return 0
        live = &self._live[which % self._n_live]
        n = live.chain.n_out + live.chain.n_in
        for i in range(live.chain.n_out, min(n, <uint32_t>KEPT)):
            memset(live.segments[i].hva, value, live.segments[i].len)
        return 0
