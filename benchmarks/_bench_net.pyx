# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A card's driver at C speed, the bare loops beside it, and a wire in memory, for ``bench_net``."""

from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read as c_read, write as c_write

from acrn_dm._fastring cimport (
    FR_DESC_F_AVAIL, FR_DESC_F_USED, FR_DESC_F_WRITE, FR_DESC_SIZE, FrSegment, fr_full_fence, fr_load_acquire_u16,
    fr_load_u16, fr_store_release_u16, fr_store_u16,
)
from acrn_dm.devices.virtio_net.native._port cimport PacketPort

cdef enum:
    SLOTS = 1024
    SLOT = 2048
    LOOK_US = 50

cdef int64_t PATIENCE_NS = 20000000000

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned us)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t n, int flags)


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef class Side:
    """The driver's side of one queue of either format, whose buffers take the same way round always: one descriptor
    each, entry i is buffer i. It looks all the time and wants no interrupts. *notify* kicks.
    """

    cdef uint8_t *ram
    cdef object owner
    cdef object notify
    cdef uint64_t desc, avail, used, buffers
    cdef uint32_t size, length, given, taken
    cdef bint packed, writable
    cdef readonly uint64_t kicks

    def __init__(self, uint8_t[::1] ram not None, layout, notify, *, bint packed, bint writable, uint64_t buffers,
                 uint32_t length):
        self.ram, self.owner, self.notify = &ram[0], ram, notify
        self.desc, self.avail, self.used, self.size = layout.desc, layout.avail, layout.used, layout.size
        self.packed, self.writable, self.buffers, self.length = packed, writable, buffers, length
        cdef uint32_t i
        for i in range(self.size):
            self.describe(i)
            if not packed:
                fr_store_u16(self.ram + self.avail + 4 + 2 * i, <uint16_t>i)
        fr_store_u16(self.ram + self.avail + (2 if packed else 0), 1)  # no interrupts, in either format

    def close(self):
        """Let go of the memory; not to be used any more."""
        self.owner = self.notify = None

    cdef void describe(self, uint32_t i) noexcept nogil:
        cdef uint8_t *at = self.ram + self.desc + FR_DESC_SIZE * i
        (<uint64_t *>at)[0] = self.buffers + <uint64_t>SLOT * i
        (<uint32_t *>(at + 8))[0] = self.length
        if self.packed:
            (<uint16_t *>(at + 12))[0] = <uint16_t>i
        else:
            (<uint16_t *>(at + 12))[0] = FR_DESC_F_WRITE if self.writable else 0

    cdef void give(self, uint32_t n) noexcept nogil:
        """Make the next *n* buffers available, and kick if that is wanted."""
        cdef uint32_t i, slot
        cdef uint16_t flags
        if n == 0:
            return
        for i in range(n if self.packed else 0):
            slot = (self.given + i) % self.size
            self.describe(slot)
            flags = FR_DESC_F_USED if ((self.given + i) // self.size) & 1 else FR_DESC_F_AVAIL
            flags |= FR_DESC_F_WRITE if self.writable else 0
            fr_store_release_u16(self.ram + self.desc + FR_DESC_SIZE * slot + 14, flags)
        self.given += n
        if not self.packed:
            fr_store_release_u16(self.ram + self.avail + 2, <uint16_t>self.given)
        fr_full_fence()
        if fr_load_u16(self.ram + self.used + (2 if self.packed else 0)) & 1 == 0:
            self.kick()

    cdef void kick(self) noexcept nogil:
        self.kicks += 1
        with gil:
            self.notify()

    cdef uint32_t take(self) noexcept nogil:
        """How many more have come back."""
        cdef uint32_t n = 0
        cdef uint16_t marks
        if not self.packed:
            n = <uint16_t>(fr_load_acquire_u16(self.ram + self.used + 2) - self.taken)
        while self.packed and n < self.given - self.taken:
            marks = 0 if ((self.taken + n) // self.size) & 1 else FR_DESC_F_AVAIL | FR_DESC_F_USED
            if fr_load_acquire_u16(
                self.ram + self.desc + FR_DESC_SIZE * ((self.taken + n) % self.size) + 14
            ) & (FR_DESC_F_AVAIL | FR_DESC_F_USED) != marks:
                break
            n += 1
        self.taken += n
        return n

    cdef uint32_t room(self) noexcept nogil:
        return self.size - (self.given - self.taken)


def one_way(Side side not None, uint32_t frames):
    """Nanoseconds until so many buffers have come back of a ring that is kept full. Raises TimeoutError."""
    cdef int64_t begin = now_ns()
    cdef uint32_t done = 0
    cdef bint late = False
    with nogil:
        side.give(min(side.room(), frames))
        while done < frames:
            done += side.take()
            side.give(min(side.room(), frames - done - min(frames - done, side.given - side.taken)))
            usleep(LOOK_US)  # far less than the ring lasts: the other core is not to be slowed by one that spins
            if now_ns() - begin > PATIENCE_NS:
                late = True
                break
    if late:
        raise TimeoutError(f"{done} of {frames} frames")
    return now_ns() - begin


def there_and_back(Side tx not None, Side rx not None, uint64_t frames, uint32_t window, double patience=20.0):
    """Nanoseconds until so many frames that were sent have come back, *window* under way. Raises TimeoutError after
    *patience* seconds.
    """
    cdef int64_t begin = now_ns()
    cdef uint64_t sent = 0
    cdef uint64_t back = 0
    cdef uint32_t n
    cdef bint late = False
    with nogil:
        rx.give(rx.room())
        while back < frames:
            tx.take()
            n = <uint32_t>min(<uint64_t>min(tx.room(), window - <uint32_t>(sent - back)), frames - sent)
            if n >= 32 or (n and sent + n == frames):
                tx.give(n)
                sent += n
            n = rx.take()
            rx.give(n)
            back += n
            if now_ns() - begin > <int64_t>(patience * 1e9):
                late = True
                break
    if late:
        raise TimeoutError(f"{back} of {sent} frames came back")
    return now_ns() - begin


def bare_writes(int fd, Side side not None, uint32_t frames):
    """So many plain writes out of the buffers of *side*, in turn. Raises OSError."""
    cdef uint32_t i
    cdef bint failed = False
    with nogil:
        for i in range(frames):
            if c_write(fd, side.ram + side.buffers + <uint64_t>SLOT * (i % side.size), side.length) < 0:
                failed = True
                break
    if failed:
        raise OSError("write")


def bare_reads(int fd, Side side not None, uint32_t frames):
    """So many plain reads into the buffers of *side*, in turn. Raises OSError."""
    cdef uint32_t i
    cdef bint failed = False
    with nogil:
        for i in range(frames):
            if c_read(fd, side.ram + side.buffers + <uint64_t>SLOT * (i % side.size), side.length) < 0:
                failed = True
                break
    if failed:
        raise OSError("read")


def arrive(int packet_socket, const uint8_t[::1] frame not None, uint32_t frames):
    """Send so many frames into the interface; how many it took."""
    cdef uint32_t _i
    cdef uint32_t sent = 0
    with nogil:
        for _i in range(frames):
            sent += send(packet_socket, &frame[0], frame.shape[0], 0) == frame.shape[0]
    return sent


cdef class Wire(PacketPort):
    """A wire in memory: what is sent is received."""

    cdef uint8_t[SLOTS][SLOT] slots
    cdef uint32_t[SLOTS] lengths
    cdef uint32_t put, got

    cdef int send(self, const FrSegment *pieces, uint32_t n) noexcept nogil:
        cdef uint32_t at = 0
        cdef uint32_t i
        cdef size_t step
        cdef uint8_t *slot = self.slots[self.put % SLOTS]
        if self.put - self.got == SLOTS:
            return -EAGAIN
        for i in range(n):
            step = min(pieces[i].len, <size_t>(SLOT - at))
            memcpy(slot + at, pieces[i].hva, step)
            at += <uint32_t>step
        self.lengths[self.put % SLOTS] = at
        self.put += 1
        self.ready = True
        return 0

    cdef int64_t receive(self, const FrSegment *pieces, uint32_t n) noexcept nogil:
        cdef uint32_t at = 0
        cdef uint32_t i
        cdef size_t step
        cdef uint32_t length = self.lengths[self.got % SLOTS]
        cdef uint8_t *slot = self.slots[self.got % SLOTS]
        if self.put == self.got:
            return -EAGAIN
        for i in range(n):
            step = min(pieces[i].len, <size_t>(length - at))
            memcpy(pieces[i].hva, slot + at, step)
            at += <uint32_t>step
        self.got += 1
        self.ready = self.put != self.got
        return length
