# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A driver at C speed and timed device loops, for ``bench_ring`` and for the fence litmus of the ring's tests.

It cimports ``acrn_dm._fastring`` as any data plane would, so it also shows that the ``.pxd`` is enough.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from acrn_dm._fastring cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, FR_OK, FrBatch, FrChain, FrMemory, FrRing,
    FrSegment, SplitRing, fr_enable_kicks, fr_full_fence, fr_load_acquire_u16, fr_load_u16, fr_load_u32, fr_load_u64,
    fr_pop, fr_pop_batch, fr_publish, fr_push, fr_store_release_u16, fr_store_u16, fr_store_u32, fr_translate,
)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    SPINS_BEFORE_YIELD = 2000
    REFILL = 64            # chains the driver publishes at once
    SLOTS_PER_CHAIN = 4    # descriptors reserved for one
    HEADER_GPA = 0x100000  # 64 bytes per chain, in the region of the rings
    TABLE_GPA = 0x200000

cdef uint64_t DATA_GPA = 0x100000000  # 8 KiB per chain, in the other region


cdef struct Sums:
    uint64_t addresses
    uint64_t lengths


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef int64_t clock_cost_ns() noexcept nogil:
    """What two readings of the clock in a row differ by, at best."""
    cdef int64_t best = 1000000
    cdef int64_t start
    for _ in range(1000):
        start = now_ns()
        best = min(best, now_ns() - start)
    return best


cdef class Driver:
    """Driver side of *ring* with EVENT_IDX, writing chains of one shape: ``1desc``, ``3desc`` or ``3indirect``."""

    cdef FrRing *ring
    cdef const FrMemory *memory
    cdef SplitRing owner
    cdef bint three
    cdef bint indirect
    cdef uint16_t avail_idx
    cdef uint16_t last_used
    cdef Sums per_refill   # what the device must find

    def __init__(self, SplitRing ring not None, str shape not None):
        if ring.ring.size < REFILL * SLOTS_PER_CHAIN:
            raise ValueError(f"queue size {ring.size} is less than {REFILL * SLOTS_PER_CHAIN}")
        self.owner = ring
        self.ring = &ring.ring
        self.memory = ring.ring.memory
        self.three = shape != "1desc"
        self.indirect = shape == "3indirect"
        self.avail_idx = ring.ring.next_avail
        self.last_used = ring.ring.next_used
        self.want_interrupts()

    cdef void put(self, uint8_t *table, uint32_t i, uint64_t gpa, uint32_t length, int flags) noexcept nogil:
        cdef uint8_t *at = table + FR_DESC_SIZE * i
        cdef uint64_t room
        (<uint64_t *>at)[0] = gpa
        fr_store_u32(at + 8, length)
        fr_store_u16(at + 12, flags)
        fr_store_u16(at + 14, i + 1)
        self.per_refill.addresses += <uint64_t>fr_translate(self.memory, gpa, &room)
        self.per_refill.lengths += length

    cdef void add(self, uint32_t chain) noexcept nogil:
        """Write the descriptors of chain number *chain* and enter it; not yet published."""
        cdef uint64_t room
        cdef uint32_t head = chain * SLOTS_PER_CHAIN
        cdef uint32_t first = head
        cdef uint64_t table_gpa = TABLE_GPA + chain * FR_DESC_SIZE * SLOTS_PER_CHAIN
        cdef uint64_t data_gpa = DATA_GPA + 8192 * chain
        cdef uint64_t header_gpa = HEADER_GPA + 64 * chain
        cdef uint8_t *table = <uint8_t *>self.ring.desc
        if self.indirect:
            self.put(table, head, table_gpa, 3 * FR_DESC_SIZE, FR_DESC_F_INDIRECT)
            self.per_refill.addresses -= <uint64_t>fr_translate(self.memory, table_gpa, &room)
            self.per_refill.lengths -= 3 * FR_DESC_SIZE
            table = <uint8_t *>fr_translate(self.memory, table_gpa, &room)
            first = 0
        if self.three:
            self.put(table, first, header_gpa, 16, FR_DESC_F_NEXT)
            self.put(table, first + 1, data_gpa, 4096, FR_DESC_F_NEXT | FR_DESC_F_WRITE)
            self.put(table, first + 2, header_gpa + 32, 1, FR_DESC_F_WRITE)
        else:
            self.put(table, first, data_gpa, 76, 0)
        fr_store_u16(<uint8_t *>self.ring.avail + 4 + 2 * (self.avail_idx & (self.ring.size - 1)), head)
        self.avail_idx += 1

    cpdef void refill(self) noexcept:
        """Publish REFILL chains."""
        self.fill()

    cdef void fill(self) noexcept nogil:
        cdef uint32_t i
        self.per_refill.addresses = self.per_refill.lengths = 0
        for i in range(<uint32_t>REFILL):
            self.add(i)
        self.show()

    cdef void show(self) noexcept nogil:
        fr_store_release_u16(<uint8_t *>self.ring.avail + 2, self.avail_idx)

    cpdef bint collect(self) noexcept:
        """Whether exactly the REFILL chains came back, in order."""
        return self.take_back()

    cdef bint take_back(self) noexcept nogil:
        cdef uint8_t *element
        cdef uint32_t i
        if <uint16_t>(fr_load_acquire_u16(self.ring.used + 2) - self.last_used) != REFILL:
            return False
        for i in range(<uint32_t>REFILL):
            element = self.ring.used + 4 + 8 * (self.last_used & (self.ring.size - 1))
            if (<uint32_t *>element)[0] != i * SLOTS_PER_CHAIN:
                return False
            self.last_used += 1
        self.want_interrupts()
        return True

    cdef void want_interrupts(self) noexcept nogil:
        fr_store_u16(<uint8_t *>self.ring.avail + 4 + 2 * self.ring.size, self.last_used)


cdef int handle(FrRing *ring, FrBatch *batch, uint32_t limit, Sums *sums) noexcept nogil:
    """One turn of a data plane without payload: a batch popped, looked at, pushed, published. Returns how many."""
    cdef FrChain *chain
    cdef uint32_t i, k
    if fr_pop_batch(ring, batch, limit) != FR_OK:
        return 0
    for i in range(batch.n_chains):
        chain = &batch.chains[i]
        for k in range(chain.n_out + chain.n_in):
            sums.addresses += <uint64_t>chain.segments[k].hva
            sums.lengths += chain.segments[k].len
        fr_push(ring, chain.head, chain.in_bytes)
    fr_publish(ring)
    return batch.n_chains


cdef int handle_floor(FrRing *ring, uint32_t limit, Sums *sums) noexcept nogil:
    """The same turn with nothing between: no chain or segment is stored, no head tracked, and a bad one just ends it.

    What is left is what any device has to do, so the ratio to this says what our interface and its safety cost.
    """
    cdef uint16_t next_avail = ring.next_avail
    cdef uint16_t next_used = ring.next_used
    cdef uint16_t mask = ring.size - 1
    cdef uint8_t *element
    cdef uint32_t writable
    cdef uint16_t head
    cdef int n_done = 0
    if ring.next_avail == ring.seen_avail:
        ring.seen_avail = fr_load_acquire_u16(ring.avail + 2)
    while n_done < <int>limit and next_avail != ring.seen_avail:
        head = fr_load_u16(ring.avail + 4 + 2 * (next_avail & mask))
        if not floor_walk(ring, head, &writable, sums):
            return n_done
        element = ring.used + 4 + 8 * (next_used & mask)
        fr_store_u32(element, head)
        fr_store_u32(element + 4, writable)
        next_used += 1
        next_avail += 1
        n_done += 1
    ring.next_avail, ring.next_used = next_avail, next_used
    fr_publish(ring)
    return n_done


cdef inline bint floor_walk(const FrRing *ring, uint32_t index, uint32_t *writable, Sums *sums) noexcept nogil:
    """One chain, from descriptor *index* on; false where it has a bad address."""
    cdef const uint8_t *table = ring.desc
    cdef const uint8_t *at
    cdef uint8_t *hva
    cdef uint64_t room
    cdef uint32_t length
    cdef uint32_t n_entries = ring.size
    cdef uint32_t walked = 0
    cdef uint16_t flags
    writable[0] = 0
    while index < n_entries and walked < ring.size:
        at = table + FR_DESC_SIZE * index
        length = fr_load_u32(at + 8)
        flags = fr_load_u16(at + 12)
        hva = <uint8_t *>floor_translate(ring.memory, fr_load_u64(at), &room)
        if hva == NULL or room < length:
            return False
        if flags & FR_DESC_F_INDIRECT:
            table, n_entries, index = hva, length // FR_DESC_SIZE, 0
            continue
        sums.addresses += <uint64_t>hva
        sums.lengths += length
        writable[0] += length if flags & FR_DESC_F_WRITE else 0
        walked += 1
        if not flags & FR_DESC_F_NEXT:
            break
        index = fr_load_u16(at + 14)
    return True


cdef inline void *floor_translate(const FrMemory *memory, uint64_t gpa, uint64_t *room) noexcept nogil:
    cdef uint64_t offset
    cdef uint32_t i
    for i in range(memory.n_regions):
        offset = gpa - memory.regions[i].gpa
        if offset < memory.regions[i].size:
            room[0] = memory.regions[i].size - offset
            return memory.regions[i].hva + offset
    return NULL


def time_native(Driver driver not None, uint32_t batch, int refills, bint floor):
    """Nanoseconds per chain of the device side without Python objects, ours or the floor.

    Raises RuntimeError when the device did not find every address and length, or returned the wrong chains.
    """
    cdef SplitRing owner = driver.owner
    cdef int64_t total = 0
    cdef int64_t overhead
    cdef int64_t start
    cdef bint good = True
    cdef Sums sums
    cdef int n_done, n
    with nogil:
        overhead = clock_cost_ns()
        for _ in range(refills):
            driver.fill()
            sums.addresses = sums.lengths = 0
            n_done = 0
            start = now_ns()
            while n_done < REFILL:
                if floor:
                    n = handle_floor(&owner.ring, batch, &sums)
                else:
                    n = handle(&owner.ring, &owner.batch, batch, &sums)
                if n == 0:
                    break
                n_done += n
            total += now_ns() - start - overhead
            good = good and driver.take_back()
            good = good and sums.addresses == driver.per_refill.addresses and sums.lengths == driver.per_refill.lengths
    if not good:
        raise RuntimeError("the device side did not handle what the driver made available")
    return total / (refills * <double>REFILL)


# --- litmus: can both sides read the other's old word? ----------------------------------------------------------------

cdef class Litmus:
    """Two threads, one step each at the same moment, very often: does a wake-up fall between them?

    Either the device publishes a used element while the driver asks for an interrupt (*kicks* false), or the driver
    publishes a chain while the device asks for a kick. Each side then looks at the other's word. It is lost when the
    one saw no wish to be woken and the other saw nothing new: both would sleep. Run ``device`` and ``driver`` in a
    thread each.
    """

    cdef Driver side
    cdef FrRing *ring
    cdef bint kicks
    cdef bint device_noticed
    cdef uint16_t device_turn[64]  # [0] only: each counter in a cache line of its own
    cdef uint16_t driver_turn[64]

    def __init__(self, Driver side not None, bint kicks):
        self.side = side
        self.ring = &side.owner.ring
        self.kicks = kicks

    def device(self, int rounds):
        """The device's thread; ends after *rounds*."""
        cdef uint32_t seed = 2
        with nogil:
            for _ in range(rounds):
                if not self.kicks:
                    meet(self.device_turn, self.driver_turn)  # the chain is there
                    self.take_one()
                meet(self.device_turn, self.driver_turn)
                dawdle(&seed)
                if self.kicks:
                    self.device_noticed = fr_enable_kicks(self.ring) == FR_OK
                else:
                    self.device_noticed = fr_publish(self.ring)
                meet(self.device_turn, self.driver_turn)
                if self.kicks:
                    self.take_one()
                    fr_publish(self.ring)
                meet(self.device_turn, self.driver_turn)

    def driver(self, int rounds):
        """The driver's thread; returns in how many of *rounds* a wake-up was lost."""
        cdef Driver side = self.side
        cdef uint32_t seed = 1
        cdef int n_lost = 0
        cdef int i
        cdef bint noticed
        with nogil:
            for i in range(rounds):
                side.add(i % REFILL)
                if not self.kicks:
                    side.show()
                    meet(self.driver_turn, self.device_turn)
                meet(self.driver_turn, self.device_turn)
                dawdle(&seed)
                noticed = self.step()
                meet(self.driver_turn, self.device_turn)
                if not noticed and not self.device_noticed:
                    n_lost += 1
                side.last_used += 1
                meet(self.driver_turn, self.device_turn)
        return n_lost

    cdef void take_one(self) noexcept nogil:
        cdef FrChain chain
        cdef FrSegment segments[SLOTS_PER_CHAIN]
        if fr_pop(self.ring, &chain, segments, SLOTS_PER_CHAIN) == FR_OK:
            fr_push(self.ring, chain.head, 0)

    cdef bint step(self) noexcept nogil:
        """The driver's half, with the fence it owes; true when it noticed the device's half."""
        cdef uint16_t event
        if self.kicks:
            self.side.show()
            fr_full_fence()
            event = fr_load_u16(self.ring.used + 4 + 8 * self.ring.size)
            return <uint16_t>(event + 1) == self.side.avail_idx
        self.side.want_interrupts()
        fr_full_fence()
        return fr_load_acquire_u16(self.ring.used + 2) != self.side.last_used


cdef void meet(uint16_t *own, const uint16_t *other) noexcept nogil:
    """Wait until the other thread has come as far as we have; on a busy machine that may need our core."""
    cdef uint16_t turn = own[0] + 1
    cdef uint32_t spins = 0
    fr_store_release_u16(own, turn)
    while <uint16_t>(fr_load_acquire_u16(other) - turn) > 1:  # level, or one meeting ahead already
        spins += 1
        if spins > SPINS_BEFORE_YIELD:
            sched_yield()


cdef void dawdle(uint32_t *seed) noexcept nogil:
    """A short random time, so that the steps overlap in every way."""
    cdef uint32_t turns
    seed[0] = seed[0] * 1664525 + 1013904223
    turns = seed[0] >> 26
    while turns > 0:
        fr_full_fence()
        turns -= 1
