# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A driver of packed rings at C speed and a device loop, with the shapes of chains of ``_bench_ring``.

It cimports ``acrn_dm._fastring`` as any data plane would, and pops in one place, so that the pop is inlined there.
"""

from benchmarks._clock cimport clock_cost_ns, now_ns
from benchmarks._ring_peers cimport floor_packed, peer_begin, peer_queue, peer_sums
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


from acrn_dm._fastring cimport (
    FR_DESC_F_AVAIL, FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_USED, FR_DESC_F_WRITE, FR_DESC_SIZE, FR_EVENT_DESC,
    FR_OK, FrBatch, FrChain, FrMemory, FrPacked, FrSegment, PackedRing, fp_pop_batch, fp_publish, fp_push,
    fr_load_acquire_u16, fr_load_u16, fr_store_release_u16, fr_store_u16, fr_store_u32, fr_translate,
)

cdef enum:
    REFILL = 64            # as in _bench_ring
    HEADER_GPA = 0x100000
    TABLE_GPA = 0x200000
    MARKS = FR_DESC_F_AVAIL | FR_DESC_F_USED

cdef uint64_t DATA_GPA = 0x100000000


ctypedef int (*turn_of)(
    FrPacked *packed, FrBatch *batch, peer_queue *queue, uint32_t limit, peer_sums *sums,
) noexcept nogil


cdef class Driver:
    """Driver side of *ring* with EVENT_IDX, writing chains of one shape: ``1desc``, ``3desc`` or ``3indirect``."""

    cdef FrPacked *packed
    cdef const FrMemory *memory
    cdef PackedRing owner
    cdef bint three
    cdef bint indirect
    cdef uint32_t length      # descriptors of a chain in the ring
    cdef uint32_t slot
    cdef uint16_t marks
    cdef uint32_t used_slot
    cdef uint16_t used_marks
    cdef uint64_t addresses   # what the device must find in a refill
    cdef uint64_t lengths
    cdef turn_of device       # by a pointer: a function of its own, as the floor is, not a part of the loop around it

    def __init__(self, PackedRing ring not None, str shape not None):
        self.owner = ring
        self.device = handle
        self.packed = &ring.packed
        self.memory = ring.packed.ring.memory
        self.three = shape != "1desc"
        self.indirect = shape == "3indirect"
        self.length = 3 if shape == "3desc" else 1
        self.marks = FR_DESC_F_AVAIL
        self.used_marks = MARKS
        self.want_interrupts()

    cdef void write(self, uint8_t *at, uint64_t gpa, uint32_t length, uint16_t id) noexcept nogil:
        (<uint64_t *>at)[0] = gpa
        fr_store_u32(at + 8, length)
        fr_store_u16(at + 12, id)

    cdef void expect(self, uint64_t gpa, uint32_t length) noexcept nogil:
        cdef uint64_t room
        self.addresses += <uint64_t>fr_translate(self.memory, gpa, &room)
        self.lengths += length

    cdef uint8_t *put(self, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t id, bint head) noexcept nogil:
        """The next descriptor, shown unless it is the *head*; returns where it is."""
        cdef uint8_t *at = <uint8_t *>self.packed.ring.desc + FR_DESC_SIZE * self.slot
        self.write(at, gpa, length, id)
        if not head:
            fr_store_u16(at + 14, flags | self.marks)
        self.slot += 1
        if self.slot == self.packed.ring.size:
            self.slot = 0
            self.marks ^= MARKS
        return at

    cdef void add(self, uint32_t chain) noexcept nogil:
        cdef uint64_t room
        cdef uint64_t table_gpa = TABLE_GPA + chain * FR_DESC_SIZE * 4
        cdef uint64_t data_gpa = DATA_GPA + 8192 * chain
        cdef uint64_t header_gpa = HEADER_GPA + 64 * chain
        cdef uint16_t marks = self.marks
        cdef uint16_t flags = 0
        cdef uint8_t *table
        cdef uint8_t *head
        if not self.three:
            head = self.put(data_gpa, 76, 0, chain, True)
            self.expect(data_gpa, 76)
        else:
            self.expect(header_gpa, 16)
            self.expect(data_gpa, 4096)
            self.expect(header_gpa + 32, 1)
            if self.indirect:
                table = <uint8_t *>fr_translate(self.memory, table_gpa, &room)
                self.write(table, header_gpa, 16, 0)
                fr_store_u16(table + 14, 0)
                self.write(table + 16, data_gpa, 4096, 0)
                fr_store_u16(table + 30, FR_DESC_F_WRITE)
                self.write(table + 32, header_gpa + 32, 1, 0)
                fr_store_u16(table + 46, FR_DESC_F_WRITE)
                flags = FR_DESC_F_INDIRECT
                head = self.put(table_gpa, 3 * FR_DESC_SIZE, flags, chain, True)
            else:
                flags = FR_DESC_F_NEXT
                head = self.put(header_gpa, 16, flags, 0, True)
                self.put(data_gpa, 4096, FR_DESC_F_NEXT | FR_DESC_F_WRITE, 0, False)
                self.put(header_gpa + 32, 1, FR_DESC_F_WRITE, chain, False)
        fr_store_release_u16(head + 14, flags | marks)

    cpdef void refill(self) noexcept:
        """Make REFILL chains available, one by one."""
        self.fill()

    cdef void fill(self) noexcept nogil:
        cdef uint32_t i
        self.addresses = self.lengths = 0
        for i in range(<uint32_t>REFILL):
            self.add(i)

    def found(self):
        """Sums of the addresses and of the lengths in the last refill."""
        return self.addresses, self.lengths

    cpdef bint collect(self) noexcept:
        """Whether exactly the REFILL chains came back, in order."""
        return self.take_back()

    cdef bint take_back(self) noexcept nogil:
        cdef uint8_t *at
        cdef uint32_t i
        for i in range(<uint32_t>REFILL):
            at = <uint8_t *>self.packed.ring.desc + FR_DESC_SIZE * self.used_slot
            if (fr_load_acquire_u16(at + 14) & MARKS) != self.used_marks or fr_load_u16(at + 12) != i:
                return False
            self.used_slot += self.length
            if self.used_slot >= self.packed.ring.size:
                self.used_slot -= self.packed.ring.size
                self.used_marks ^= MARKS
        self.want_interrupts()
        return True

    cdef void want_interrupts(self) noexcept nogil:
        cdef uint32_t position = self.used_slot | (0x8000 if self.used_marks != 0 else 0)
        fr_store_u32(<uint8_t *>self.packed.ring.avail, position | <uint32_t>FR_EVENT_DESC << 16)


cdef int handle(
    FrPacked *packed, FrBatch *batch, peer_queue *queue, uint32_t limit, peer_sums *sums,
) noexcept nogil:
    """One turn of a data plane without payload: a batch popped, looked at, pushed, published, and interrupts counted as
    the floor counts them. Returns how many.
    """
    cdef const FrChain *chain = batch.chains
    cdef const FrChain *end
    cdef const FrSegment *segment
    cdef uint64_t addresses = 0, lengths = 0
    if fp_pop_batch(packed, batch, limit) != FR_OK:
        return 0
    end = chain + batch.n_chains
    while chain != end:
        segment = chain.segments
        while segment != chain.segments + chain.n_out + chain.n_in:
            addresses += <uint64_t>segment.hva
            lengths += segment.len
            segment += 1
        fp_push(packed, chain.head, chain.in_bytes)
        chain += 1
    queue.wanted += fp_publish(packed)
    sums.addresses += addresses
    sums.lengths += lengths
    return batch.n_chains


def time_native(Driver driver not None, uint32_t batch, int refills, bint floor):
    """Nanoseconds per chain of the device side without Python objects: of ours, or of the floor.

    Raises RuntimeError when the device did not find every address and length, or returned the wrong chains.
    """
    cdef PackedRing owner = driver.owner
    cdef peer_queue queue
    cdef peer_sums sums
    cdef int64_t overhead, start, total = 0
    cdef bint good = True
    cdef int n_done, n
    peer_begin(&queue, &owner.packed.ring)
    queue.next_used = <uint16_t>owner.packed.next_used
    queue.avail_marks, queue.used_marks = owner.packed.avail_marks, owner.packed.used_marks
    with nogil:
        overhead = clock_cost_ns()
        for _ in range(refills):
            driver.fill()
            sums.addresses = sums.lengths = 0
            n_done = 0
            start = now_ns()
            while n_done < REFILL:
                if floor:
                    n = floor_packed(&queue, batch, &sums)
                else:
                    n = driver.device(driver.packed, &owner.batch, &queue, batch, &sums)
                if n == 0:
                    break
                n_done += n
            total += now_ns() - start - overhead
            good = good and driver.take_back()
            good = good and sums.addresses == driver.addresses and sums.lengths == driver.lengths
    if not good:
        raise RuntimeError("the device side did not handle what the driver made available")
    return total / (refills * <double>REFILL)
