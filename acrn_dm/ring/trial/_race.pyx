# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""A race of two threads on one ring, a driver in C and the native device side: neither may sleep on work that is there.

Each side sleeps on an eventfd as soon as it finds nothing, after it has asked to be woken and looked once more. Chain
number n brings the number n to the device and takes its complement back, so a chain that is lost, repeated, out of
order or seen before its data is told as well as a wake-up that never came.
"""

from acrn_dm._fastring cimport (
    FR_OK, FrBatch, FrChain, FrSegment, FrVirtqueue, MemoryMap, RingBase, fr_full_fence, fr_load_acquire_u16,
    fr_load_u16, fr_load_u32, fr_load_u64, fr_store_release_u16, fr_store_u16, fr_store_u32, vq_disable_kicks,
    vq_enable_kicks, vq_pop_batch, vq_publish, vq_push,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read, write

from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.packed.layout import packed_layout

from acrn_dm._fastring import PackedRing, SplitRing

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initval, int flags)

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long nfds, int timeout)
    enum:
        POLLIN

cdef enum:
    RING = 0x1000
    DATA = 0x100000             # 16 bytes a descriptor: the number, its complement
    BATCH = 32
    AVAIL = 1 << 7
    USED = 1 << 15
    F_WRITE = 2
    F_NEXT = 1

LOST_WAKE_UP, WRONG_CHAIN, WRONG_DATA, BROKEN = 1, 2, 3, 4  # what ``drive`` and ``serve`` return; 0: nothing


cdef class Race:
    """One ring, its two eventfds and both sides; ``drive`` and ``serve`` run in two threads, without the GIL.

    *limit_ms* is how long a side sleeps before that counts as a wake-up lost. *linger* is how long, in memory fences,
    each side hesitates between finding nothing and asking to be woken, now and then. *faulty* leaves out what makes
    the device sleep safely, its last look, to show that the race sees it.
    """

    cdef MemoryMap _memory
    cdef object _keep
    cdef RingBase _ring
    cdef object _layout
    cdef uint8_t *_ram
    cdef bint _packed
    cdef bint _event_idx
    cdef bint _faulty
    cdef uint32_t _linger
    cdef int _limit_ms
    cdef uint32_t _size
    cdef uint8_t *_desc
    cdef uint8_t *_avail
    cdef uint8_t *_used
    cdef int _kick
    cdef int _call
    cdef uint64_t _total
    cdef readonly uint64_t kicks
    cdef readonly uint64_t calls
    cdef readonly uint64_t driver_slept
    cdef readonly uint64_t device_slept
    cdef readonly uint64_t done

    def __cinit__(self, *, bint packed, bint event_idx, uint32_t size, uint64_t chains, int limit_ms=20000,
                  uint32_t linger=0, bint faulty=False):
        self._keep = bytearray(DATA + 16 * size)
        self._memory = MemoryMap([(0, self._keep)])
        self._ram = <uint8_t *>self._memory.memory.regions[0].hva
        self._packed, self._event_idx, self._size, self._total = packed, event_idx, size, chains
        self._limit_ms, self._linger, self._faulty = limit_ms, linger, faulty
        layout = packed_layout(RING, size) if packed else RingLayout.at(RING, size)
        if packed:
            self._ring = PackedRing(self._memory, size=size, desc=layout.desc, driver=layout.avail, device=layout.used,
                                    event_idx=event_idx)
        else:
            self._ring = SplitRing(self._memory, size=size, desc=layout.desc, avail=layout.avail, used=layout.used,
                                   event_idx=event_idx)
        self._desc = self._ram + <size_t>layout.desc
        self._avail = self._ram + <size_t>layout.avail
        self._used = self._ram + <size_t>layout.used
        self._kick, self._call = eventfd(0, 0), eventfd(0, 0)

    def __dealloc__(self):
        close(self._kick)
        close(self._call)

    def serve(self):
        """The device's thread, until all chains are served; returns 0, or what went wrong."""
        cdef FrVirtqueue *queue = self._ring.virtqueue()
        cdef int found
        with nogil:
            found = self._serve(queue)
        return found

    def drive(self):
        """The driver's thread, until all chains are back; returns 0, or what went wrong."""
        cdef int found
        with nogil:
            found = self._drive()
        return found

    cdef int _sleep(self, int fd) noexcept nogil:
        cdef pollfd waiting
        cdef uint64_t count
        waiting.fd, waiting.events = fd, POLLIN
        if poll(&waiting, 1, self._limit_ms) != 1:
            return 1
        read(fd, &count, sizeof(count))
        return 0

    cdef void _wake(self, int fd) noexcept nogil:
        cdef uint64_t one = 1
        write(fd, &one, sizeof(one))

    cdef void _hesitate(self, uint64_t number) noexcept nogil:
        cdef uint32_t _i
        for _i in range(self._linger if number % 8 == 0 else 0):
            fr_full_fence()

    # The device: what VbsU and planes do.

    cdef int _serve(self, FrVirtqueue *queue) noexcept nogil:
        cdef FrBatch *batch = <FrBatch *>calloc(1, sizeof(FrBatch))
        cdef uint64_t served = 0
        cdef int found = 0
        batch.chains = <FrChain *>calloc(BATCH, sizeof(FrChain))
        batch.segments = <FrSegment *>calloc(4 * BATCH, sizeof(FrSegment))
        batch.max_chains, batch.max_segments = BATCH, 4 * BATCH
        while served < self._total and found == 0:
            found = self._serve_batch(queue, batch, &served)
        free(batch.chains)
        free(batch.segments)
        free(batch)
        return found

    cdef int _serve_batch(self, FrVirtqueue *queue, FrBatch *batch, uint64_t *served) noexcept nogil:
        cdef int status = vq_pop_batch(queue, batch, BATCH)
        cdef uint32_t i
        cdef uint64_t number
        if status < 0:
            return 4
        for i in range(batch.n_chains):
            memcpy(&number, batch.chains[i].segments[0].hva, 8)
            if number != served[0]:
                return 3
            number = ~number
            memcpy(batch.chains[i].segments[1].hva, &number, 8)
            vq_push(queue, batch.chains[i].head, 8)
            served[0] += 1
        if vq_publish(queue):
            self.calls += 1
            self._wake(self._call)
        if batch.n_chains or served[0] == self._total:
            return 0
        self._hesitate(served[0])
        if vq_enable_kicks(queue) == FR_OK and not self._faulty:
            return 0
        self.device_slept += 1
        if self._sleep(self._kick):
            return 1
        vq_disable_kicks(queue)
        return 0

    # The driver: two descriptors a chain, as many chains in flight as there is room for.

    cdef int _drive(self) noexcept nogil:
        cdef uint64_t sent = 0, taken = 0, before
        cdef uint32_t most = self._size // 2
        cdef int found
        while taken < self._total:
            before = sent
            while sent < self._total and sent - taken < most and sent - before < 1 + (sent & 7):
                self._offer(sent)
                sent += 1
            if sent != before:
                self._publish(before, sent)
            before = taken
            found = self._collect(&taken, sent)
            if found:
                return found
            if taken == before and (sent - taken == most or sent == self._total):
                self._hesitate(taken)
                self._ask(taken)
                fr_full_fence()
                if not self._is_used(taken):
                    self.driver_slept += 1
                    if self._sleep(self._call):
                        return 1
        self.done = taken
        return 0

    cdef uint8_t *_data(self, uint64_t number) noexcept nogil:
        return self._ram + DATA + 32 * (number % (self._size // 2))

    cdef void _write(self, uint8_t *at, uint64_t gpa, uint16_t third, uint16_t fourth) noexcept nogil:
        memcpy(at, &gpa, 8)
        fr_store_u32(at + 8, 8)
        fr_store_u16(at + 12, third)
        fr_store_u16(at + 14, fourth)

    cdef void _offer(self, uint64_t number) noexcept nogil:
        """Chain *number* in the next two descriptors; its first one's flags are left for ``_publish``, if packed."""
        cdef uint8_t *data = self._data(number)
        cdef uint64_t gpa = data - self._ram
        cdef uint32_t pair = number % (self._size // 2)
        cdef uint16_t marks = AVAIL if self._lap(number) else USED
        cdef uint8_t *at = self._desc + 32 * pair
        memcpy(data, &number, 8)
        memset(data + 8, 0, 8)
        if self._packed:
            self._write(at + 16, gpa + 8, pair, F_WRITE | marks)
            memcpy(at, &gpa, 8)
            fr_store_u32(at + 8, 8)
            return
        self._write(at, gpa, F_NEXT, 2 * pair + 1)
        self._write(at + 16, gpa + 8, F_WRITE, 0)
        fr_store_u16(self._avail + 4 + 2 * (number % self._size), 2 * pair)

    cdef bint _lap(self, uint64_t number) noexcept nogil:
        """The wrap counter: an even size, so that no chain lies over the end."""
        return not number // (self._size // 2) & 1

    cdef void _publish(self, uint64_t first, uint64_t end) noexcept nogil:
        cdef uint64_t number = end
        cdef uint32_t pairs = self._size // 2
        cdef uint16_t marks
        if self._packed:
            while number > first:
                number -= 1
                marks = AVAIL if self._lap(number) else USED
                fr_store_release_u16(self._desc + 32 * (number % pairs) + 14, F_NEXT | marks)
        else:
            fr_store_release_u16(self._avail + 2, <uint16_t>end)
        fr_full_fence()
        if self._wants_kick(first, end):
            self.kicks += 1
            self._wake(self._kick)

    cdef bint _wants_kick(self, uint64_t first, uint64_t end) noexcept nogil:
        cdef uint32_t event, laps
        if not self._packed:
            if not self._event_idx:
                return not fr_load_u16(self._used) & 1
            event = fr_load_u16(self._used + 4 + 8 * self._size)
            return <uint16_t>(end - event - 1) < <uint16_t>(end - first)
        event = fr_load_u32(self._used)
        if event >> 16 != 2:
            return event >> 16 != 1
        # Counted modulo two laps: the descriptor asked for, from the first one made available on.
        laps = 2 * self._size
        event = (event & 0x7FFF) + (0 if event & 0x8000 else self._size)
        return (event + laps - 2 * first % laps) % laps < 2 * (end - first)

    cdef bint _is_used(self, uint64_t number) noexcept nogil:
        cdef uint16_t flags
        if not self._packed:
            return fr_load_acquire_u16(self._used + 2) != <uint16_t>number
        flags = fr_load_acquire_u16(self._desc + 32 * (number % (self._size // 2)) + 14)
        return flags & (AVAIL | USED) == (AVAIL | USED if self._lap(number) else 0)

    cdef int _collect(self, uint64_t *taken, uint64_t sent) noexcept nogil:
        cdef uint32_t pair, expected
        while taken[0] < sent and self._is_used(taken[0]):
            expected = taken[0] % (self._size // 2)
            if self._packed:
                pair = fr_load_u16(self._desc + 32 * expected + 12)
            else:
                pair = fr_load_u32(self._used + 4 + 8 * (taken[0] % self._size)) // 2
            if pair != expected:
                return 2
            if fr_load_u64(self._data(taken[0]) + 8) != ~taken[0]:
                return 3
            taken[0] += 1
        return 0

    cdef void _ask(self, uint64_t taken) noexcept nogil:
        """Ask for an interrupt at the next chain that comes back."""
        cdef uint32_t slot = 2 * (taken % (self._size // 2))
        if not self._event_idx:
            return  # asked for all the time
        if self._packed:
            fr_store_u32(self._avail, slot | <uint32_t>self._lap(taken) << 15 | 2 << 16)
        else:
            fr_store_u16(self._avail + 4 + 2 * self._size, <uint16_t>taken)
