# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A driver at C speed and timed device loops, for ``bench_ring`` and for the fence litmus of the ring's tests.

It cimports ``acrn_dm._fastring`` as any data plane would, so it also shows that the ``.pxd`` is enough.
"""

from benchmarks._clock cimport clock_cost_ns, now_ns
from benchmarks._ring_peers cimport floor_split, original_split, peer_begin, peer_queue, peer_sums
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from acrn_dm._fastring cimport (
    FR_DESC_F_INDIRECT, FR_DESC_F_NEXT, FR_DESC_F_WRITE, FR_DESC_SIZE, FR_OK, FrBatch, FrChain, FrMemory, FrRing,
    FrSegment, SplitRing, fr_enable_kicks, fr_full_fence, fr_load_acquire_u16, fr_load_u16,
    fr_pop_batch, fr_publish, fr_push, fr_store_release_u16, fr_store_u16, fr_store_u32, fr_translate,
)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    SPINS_BEFORE_YIELD = 2000
    REFILL = 64            # chains the driver publishes at once
    SLOTS_PER_CHAIN = 4    # descriptors reserved for one
    HEADER_GPA = 0x100000  # 64 bytes per chain, in the region of the rings
    TABLE_GPA = 0x200000
    IDLE_SPINS = 1 << 30
    OURS = 0               # who serves
    FLOOR = 1
    ORIGINAL = 2

cdef uint64_t DATA_GPA = 0x100000000  # 8 KiB per chain, in the other region


cdef class Driver:
    """Driver side of *ring* with EVENT_IDX, writing chains of one shape: ``1desc``, ``3desc`` or ``3indirect``."""

    cdef FrRing *ring
    # What a guest's driver knows itself. The device's lines of *ring*, which change with each chain, are not its own.
    cdef uint8_t *desc
    cdef uint8_t *avail
    cdef uint8_t *used
    cdef uint32_t size
    cdef const FrMemory *memory
    cdef SplitRing owner
    cdef bint three
    cdef bint indirect
    cdef uint16_t avail_idx
    cdef uint16_t last_used
    cdef peer_sums found  # what the device must find

    def __init__(self, SplitRing ring not None, str shape not None):
        if ring.ring.size < REFILL * SLOTS_PER_CHAIN:
            raise ValueError(f"queue size {ring.size} is less than {REFILL * SLOTS_PER_CHAIN}")
        self.owner = ring
        self.ring = &ring.ring
        self.desc, self.avail, self.used = ring.ring.desc, <uint8_t *>ring.ring.avail, ring.ring.used
        self.size = ring.ring.size
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
        self.found.addresses += <uint64_t>fr_translate(self.memory, gpa, &room)
        self.found.lengths += length

    cdef void add(self, uint32_t chain) noexcept nogil:
        """Write the descriptors of chain number *chain* and enter it; not yet published."""
        cdef uint64_t room
        cdef uint32_t head = chain * SLOTS_PER_CHAIN
        cdef uint32_t first = head
        cdef uint64_t table_gpa = TABLE_GPA + chain * FR_DESC_SIZE * SLOTS_PER_CHAIN
        cdef uint64_t data_gpa = DATA_GPA + 8192 * chain
        cdef uint64_t header_gpa = HEADER_GPA + 64 * chain
        cdef uint8_t *table = self.desc
        if self.indirect:
            self.put(table, head, table_gpa, 3 * FR_DESC_SIZE, FR_DESC_F_INDIRECT)
            self.found.addresses -= <uint64_t>fr_translate(self.memory, table_gpa, &room)
            self.found.lengths -= 3 * FR_DESC_SIZE
            table = <uint8_t *>fr_translate(self.memory, table_gpa, &room)
            first = 0
        if self.three:
            self.put(table, first, header_gpa, 16, FR_DESC_F_NEXT)
            self.put(table, first + 1, data_gpa, 4096, FR_DESC_F_NEXT | FR_DESC_F_WRITE)
            self.put(table, first + 2, header_gpa + 32, 1, FR_DESC_F_WRITE)
        else:
            self.put(table, first, data_gpa, 76, 0)
        fr_store_u16(self.avail + 4 + 2 * (self.avail_idx & (self.size - 1)), head)
        self.avail_idx += 1

    cpdef void refill(self) noexcept:
        """Publish REFILL chains."""
        self.fill()

    cdef void fill(self) noexcept nogil:
        cdef uint32_t i
        self.found.addresses = self.found.lengths = 0
        for i in range(<uint32_t>REFILL):
            self.add(i)
        self.show()

    cdef void show(self) noexcept nogil:
        fr_store_release_u16(self.avail + 2, self.avail_idx)

    cpdef bint collect(self) noexcept:
        """Whether exactly the REFILL chains came back, in order."""
        return self.take_back()

    cdef bint take_back(self) noexcept nogil:
        cdef uint8_t *element
        cdef uint32_t i
        if <uint16_t>(fr_load_acquire_u16(self.used + 2) - self.last_used) != REFILL:
            return False
        for i in range(<uint32_t>REFILL):
            element = self.used + 4 + 8 * (self.last_used & (self.size - 1))
            if (<uint32_t *>element)[0] != i * SLOTS_PER_CHAIN:
                return False
            self.last_used += 1
        self.want_interrupts()
        return True

    cdef void want_interrupts(self) noexcept nogil:
        fr_store_u16(self.avail + 4 + 2 * self.size, self.last_used)


cdef int handle(
    FrRing *ring, FrBatch *batch, peer_queue *queue, uint32_t limit, peer_sums *sums,
) noexcept nogil:
    """One turn of a data plane without payload: a batch popped, looked at, pushed, published, and interrupts counted as
    the peers count them. Returns how many."""
    cdef const FrChain *chain = batch.chains
    cdef const FrChain *end
    cdef const FrSegment *segment
    cdef uint64_t addresses = 0, lengths = 0
    if fr_pop_batch(ring, batch, limit) != FR_OK:
        return 0
    end = chain + batch.n_chains
    while chain != end:
        segment = chain.segments
        while segment != chain.segments + chain.n_out + chain.n_in:
            addresses += <uint64_t>segment.hva
            lengths += segment.len
            segment += 1
        fr_push(ring, chain.head, chain.in_bytes)
        chain += 1
    queue.wanted += fr_publish(ring)
    sums.addresses += addresses
    sums.lengths += lengths
    return batch.n_chains


cdef int turn(
    int who, FrRing *ring, FrBatch *batch, peer_queue *queue, uint32_t limit, peer_sums *sums,
) noexcept nogil:
    if who == FLOOR:
        return floor_split(queue, limit, sums)
    if who == ORIGINAL:
        return original_split(queue, limit, sums)
    return handle(ring, batch, queue, limit, sums)


def time_native(Driver driver not None, uint32_t batch, int refills, int who):
    """Nanoseconds per chain of the device side without Python objects: of ours, the floor or the original.

    Raises RuntimeError when the device did not find every address and length, or returned the wrong chains.
    """
    cdef SplitRing owner = driver.owner
    cdef peer_queue queue
    cdef int64_t total = 0
    cdef int64_t overhead
    cdef int64_t start
    cdef bint good = True
    cdef peer_sums sums
    cdef int n_done, n
    peer_begin(&queue, &owner.ring)
    with nogil:
        overhead = clock_cost_ns()
        for _ in range(refills):
            driver.fill()
            sums.addresses = sums.lengths = 0
            n_done = 0
            start = now_ns()
            while n_done < REFILL:
                n = turn(who, &owner.ring, &owner.batch, &queue, batch, &sums)
                if n == 0:
                    break
                n_done += n
            total += now_ns() - start - overhead
            good = good and driver.take_back()
            good = good and sums.addresses == driver.found.addresses and sums.lengths == driver.found.lengths
    if not good:
        raise RuntimeError("the device side did not handle what the driver made available")
    return total / (refills * <double>REFILL)


# --- two cores: a driver that keeps 64 chains in flight, and a device, in a thread each -------------------------------

def drive(Driver driver not None, uint64_t chains):
    """Make *chains* available, up to 64 at a time, as the device returns them; nanoseconds per chain.

    Raises RuntimeError when nothing comes back any more.
    """
    cdef uint64_t sent = 0, done = 0
    cdef uint64_t idle = 0
    cdef uint16_t back
    cdef int64_t start
    with nogil:
        driver.found.addresses = driver.found.lengths = 0
        start = now_ns()
        while done < chains and idle < IDLE_SPINS:
            back = <uint16_t>(fr_load_acquire_u16(driver.used + 2) - driver.last_used)
            driver.last_used += back
            done += back
            idle = 0 if back > 0 else idle + 1
            if sent < chains and sent - done < REFILL:
                while sent < chains and sent - done < REFILL:
                    driver.add(sent % REFILL)
                    sent += 1
                driver.show()
        start = now_ns() - start
    if done != chains:
        raise RuntimeError(f"{done} of {chains} chains came back")
    return start / <double>chains


def serve(Driver driver not None, uint32_t batch, uint64_t chains, int who):
    """The device's thread, which polls; whether it found every address and length, once *driver* has been driven."""
    cdef SplitRing owner = driver.owner
    cdef peer_queue queue
    cdef peer_sums sums
    cdef uint64_t done = 0, idle = 0
    cdef int n
    peer_begin(&queue, &owner.ring)
    sums.addresses = sums.lengths = 0
    with nogil:
        while done < chains and idle < IDLE_SPINS:
            n = turn(who, &owner.ring, &owner.batch, &queue, batch, &sums)
            done += n
            idle = 0 if n > 0 else idle + 1
    return sums.addresses, sums.lengths


def found(Driver driver not None):
    """What the device must have found, since the last refill or drive."""
    return driver.found.addresses, driver.found.lengths


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
        cdef peer_queue queue
        cdef peer_sums sums
        handle(self.ring, &self.side.owner.batch, &queue, 1, &sums)

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
