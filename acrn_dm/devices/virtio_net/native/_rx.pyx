# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The plane of a receive queue. Frames wait in the kernel while the driver has posted no buffers; one at most waits
here, because its length is known only once it is read.
"""

from acrn_dm._fastring cimport (
    FR_EMPTY, FrChain, NativeRing, vq_disable_kicks, vq_look, vq_pop_batch, vq_ring, vq_unpop,
)
from acrn_dm.devices.virtio_net.native.frames._headers cimport (
    NET_GSO_ECN, NET_GSO_NONE, NET_GUEST_OFFLOADS, NET_LONG_HEADER, NET_MIN_FRAME, NET_MRG_RXBUF, NET_NUM_BUFFERS,
    net_receive_flags,
)
from acrn_dm.virtio.native._segments cimport gather, scatter
from acrn_dm.devices.virtio_net.steering._hash cimport NET_HASH_LOOKED_AT
from acrn_dm.virtio.native._counters cimport monotonic_ns
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN, EFAULT
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from acrn_dm.base.errors import GuestError

cdef extern from "<endian.h>" nogil:
    uint16_t htole16(uint16_t value)
    uint32_t htole32(uint32_t value)

cdef enum:
    BUDGET = 64               # frames per turn of the loop
    BYTES = 512 << 10         # of a turn: large frames take long
    BUFFERS = 64              # taken at once; as many as there are where a frame needs more
    LARGE = 4096              # bytes of a frame that is worth a call with several pieces, which saves a copy
    FILTERED_BY = 18          # bytes of a frame that filters look at
    REPORT_AT = 12            # of a header with a hash report: le32 value, le16 report
    TAG = 4                   # bytes of a VLAN tag, which no MTU counts
    TAG_AT = 12
    BAD_BUFFER = -1001        # a status of the plane's own


cdef class NetRx(Plane):
    """The plane of *link*'s receive queue, which is *ring*, under a driver that negotiated *features* and has *header*
    bytes before each frame; *mtu* 0: it was told none.

    A frame is read into *buffer* and copied, or where the last one was large straight into what the driver posted: a
    call for several pieces costs more than copying a small frame.
    """

    def __cinit__(self, NetLink link not None, NativeRing ring not None, uint64_t features, uint32_t header,
                  uint32_t mtu):
        if header > NET_MAX_HEADER:
            raise ValueError(f"a packet header of {header} bytes")
        self.link, self.features, self.header, self.mtu = link, features, header, mtu
        self.posted.max_chains = vq_ring(ring.virtqueue()).size
        self.posted.max_segments = ring.batch.max_segments
        self.posted.chains = <FrChain *>PyMem_Calloc(self.posted.max_chains, sizeof(FrChain))
        self.posted.segments = <FrSegment *>PyMem_Calloc(self.posted.max_segments, sizeof(FrSegment))
        if self.posted.chains == NULL or self.posted.segments == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.posted.chains)
        PyMem_Free(self.posted.segments)

    def stop(self):
        """As ``Plane.stop``; what was taken and not used goes back into the ring."""
        if self.running:
            self.give_back()
        Plane.stop(self)
        self.link.follow()

    def limit(self, uint64_t offloads):
        """From now on the driver takes frames that need *offloads*, GUEST_* bits, and no others. With the loop held."""
        self.features = self.features & ~<uint64_t>NET_GUEST_OFFLOADS | offloads
        if self.waiting and self.link.port.vnet_header and not self.judge():
            self.drop()

    def want(self, wanted):
        """From now on the driver takes the frames that *wanted*, a ReceiveFilter, lets pass; None: all. With the loop
        held.
        """
        self.wanted = None if wanted is None else FrameFilter(wanted)
        if self.waiting and self.unwanted():
            self.drop()

    def forget(self):
        """The driver does not want what has been read. With the loop held."""
        if self.waiting:
            self.drop()

    def failure(self, int status):
        """The exception for *status*."""
        if status == BAD_BUFFER:
            return GuestError(f"receive buffer of {self.bad} bytes, too small for the packet header")
        return Plane.failure(self, status)

    cdef bint serve(self) noexcept nogil:
        cdef int step = NET_MOVED
        cdef uint64_t before = self.counters.counts.bytes_in if self.running else 0
        cdef int frames = 0
        if not self.running or self.link.losing or self.link.resting or not self.link.up:
            return False
        vq_disable_kicks(self.vq)
        self.now = monotonic_ns()
        self.used = 0
        while frames < BUDGET and self.counters.counts.bytes_in - before < BYTES:
            step = self.step()
            if step != NET_MOVED:
                break
            frames += 1
        if self.used:
            self.counters.took(self.used)
        self.flush()
        if step == NET_NO_BUFFERS:
            self.link.starved = self._sleep()
        else:
            self.link.starved = False
        if not self.polling and (step == NET_MOVED or (step == NET_NO_BUFFERS and not self.link.starved)):
            self.wake()
        if not self.link.starved:
            self.link.follow()
        self.link.moved()
        return frames > 0

    cdef int step(self) noexcept nogil:
        """Move one frame, or see why that can't be."""
        cdef int step
        if self.waiting == 0:
            step = self.fetch()
            if step != NET_MOVED or self.waiting == 0:
                return step
        return self.deliver(0)

    cdef int fetch(self) noexcept nogil:
        """Read the next frame, if there are buffers. Afterwards it waits, or has been delivered or dropped."""
        cdef uint32_t before = 0 if self.link.port.vnet_header else self.header
        cdef uint32_t placed = 0
        cdef uint32_t n = 0
        cdef int64_t got
        if self.first == self.posted.n_chains and not self.refill(BUFFERS):
            return NET_ENDED
        if self.posted.n_chains == 0:
            return NET_NO_BUFFERS
        if self.expected and before == 0:
            n = self.name_posted(&placed)
        if placed < NET_BUFFER:
            self.pieces[n].hva = self.buffer + before + placed
            self.pieces[n].len = NET_BUFFER - before - placed
            n += 1
        got = self.link.port.receive(self.pieces, n)
        if got == -EAGAIN:
            return NET_NO_FRAME
        if got == -EFAULT:  # memory that the host can't give: the frame is gone
            self.dropped += 1
            return NET_MOVED
        if got < 0:
            self.link.lost(<int>-got)
            return NET_ENDED
        if placed:
            gather(self.pieces, n, 0, self.buffer, min(<uint32_t>got, self.header + self.looked_at()))
        if not self.take_in(got + before) or placed == 0:
            return NET_MOVED
        return self.deliver(placed)

    cdef bint take_in(self, int64_t got) noexcept nogil:
        """Judge what was read, of which *got* bytes are header and frame; false if the driver does not get it."""
        if not <int64_t>self.header + NET_MIN_FRAME <= got <= <int64_t>self.header + NET_MAX_FRAME:
            self.dropped += 1
            return False
        self.waiting = <uint32_t>got
        if not self.link.port.vnet_header:
            memset(self.buffer, 0, self.header)
        else:
            memset(self.buffer + NET_NUM_BUFFERS, 0, self.header - NET_NUM_BUFFERS)  # the kernel leaves that as it was
        self.expected = self.waiting if self.waiting > LARGE else 0
        if (self.link.port.vnet_header and not self.judge()) or self.unwanted():
            self.drop()
            return False
        return True

    cdef uint32_t name_posted(self, uint32_t *into) noexcept nogil:
        """Name the driver's buffers for a frame as long as the last one, in *pieces*; how many, with their bytes in
        *into*. None where they do not even hold what is looked at.
        """
        cdef uint64_t bytes = 0
        cdef uint32_t n = 0
        cdef uint32_t i, j
        cdef FrChain *chain
        into[0] = 0
        for i in range(self.first, self.posted.n_chains):
            chain = &self.posted.chains[i]
            for j in range(chain.n_out, chain.n_out + chain.n_in):
                if n == NET_RX_PIECES or bytes >= self.expected:
                    break
                self.pieces[n] = chain.segments[j]
                bytes += chain.segments[j].len
                n += 1
            if bytes >= self.expected or not self.features & NET_MRG_RXBUF:
                break
        if bytes < self.header + self.looked_at():
            return 0
        if bytes > NET_BUFFER:  # no frame is longer; and the parts that follow are counted in 32 bits
            self.pieces[n - 1].len -= <size_t>(bytes - NET_BUFFER)
            bytes = NET_BUFFER
        into[0] = <uint32_t>bytes
        return n

    cdef uint32_t looked_at(self) noexcept nogil:
        """How many bytes of a frame have to stand in *buffer*."""
        return FILTERED_BY if self.hashes is None else NET_HASH_LOOKED_AT

    cdef void report(self) noexcept nogil:
        """Put the waiting frame's hash into its header; zeros stand there."""
        cdef uint16_t kind = 0
        cdef uint32_t value
        if self.header == NET_MAX_HEADER and self.hashes is not None:
            value = htole32(self.hashes.of(self.buffer + self.header, self.waiting - self.header, &kind))
            kind = htole16(kind)
            memcpy(self.buffer + REPORT_AT, &value, sizeof(value))
            memcpy(self.buffer + REPORT_AT + sizeof(value), &kind, sizeof(kind))

    cdef bint judge(self) noexcept nogil:
        """Whether the driver can take the waiting frame; its flags are what the driver may see then."""
        cdef int flags = net_receive_flags(self.buffer, self.features)
        if flags < 0:
            return False
        self.buffer[0] = <uint8_t>flags
        return True

    cdef bint unwanted(self) noexcept nogil:
        """Whether the driver does not want the waiting frame, or was told that none is so long (5.1.4.1)."""
        cdef const uint8_t *frame = self.buffer + self.header
        cdef uint32_t length = self.waiting - self.header
        cdef bint tagged
        if self.wanted is not None and not self.wanted.passes(frame, length):
            return True
        if self.mtu == 0 or self.buffer[1] & ~NET_GSO_ECN != NET_GSO_NONE:
            return False
        tagged = frame[TAG_AT] == 0x81 and frame[TAG_AT + 1] == 0
        return length > NET_MIN_FRAME + self.mtu + (TAG if tagged else 0)

    cdef void drop(self) noexcept nogil:
        self.dropped += 1
        self.waiting = 0

    cdef int deliver(self, uint32_t placed) noexcept nogil:
        """Give the waiting frame, the first *placed* bytes of which are in the driver's buffers, to the driver."""
        cdef uint32_t done = 0
        cdef uint32_t i, step
        cdef FrChain *chain
        cdef int count = self.collect()
        if count <= 0:
            if placed and self.waiting:  # the buffers are the driver's again: the frame waits here
                gather(
                    self.pieces, NET_RX_PIECES + 1, self.header, self.buffer + self.header,
                    min(placed, self.waiting) - self.header,
                )
            return NET_MOVED if count == 0 else -count
        if self.header >= NET_LONG_HEADER:
            self.buffer[NET_NUM_BUFFERS] = count & 0xFF
            self.buffer[NET_NUM_BUFFERS + 1] = count >> 8
            self.report()
        for i in range(self.first, self.first + <uint32_t>count):  # all but the last are filled (5.1.6.4.1)
            chain = &self.posted.chains[i]
            step = min(chain.in_bytes, self.waiting - done)
            if done == 0 and placed:
                scatter(chain.segments + chain.n_out, chain.n_in, 0, self.buffer, self.header)
            if done + step > placed:
                scatter(
                    chain.segments + chain.n_out, chain.n_in, max(placed, done) - done, self.buffer + max(placed, done),
                    done + step - max(placed, done),
                )
            done += step
            self.counters.took_one(chain.head, chain.out_bytes, self.now)
            self.complete(chain.head, step)
        if count > 1 and self.coalescer.active:
            self.coalescer.merged(<uint32_t>count)
        self.first += <uint32_t>count
        self.used += <uint32_t>count
        self.waiting = 0
        return NET_MOVED

    cdef int collect(self) noexcept nogil:
        """How many of the posted chains the waiting frame takes; 0: it was dropped, no driver can post enough; or
        NET_NO_BUFFERS or NET_ENDED, negated.
        """
        cdef uint64_t room = 0
        cdef uint32_t count = 0
        cdef uint32_t n_before, in_bytes
        while True:
            while room < self.waiting and self.first + count < self.posted.n_chains:
                in_bytes = self.posted.chains[self.first + count].in_bytes
                if in_bytes == 0 or (count == 0 and in_bytes < self.header):
                    self.bad = in_bytes
                    self.posted.n_chains = self.first = 0
                    self.die(BAD_BUFFER)
                    return -NET_ENDED
                room += in_bytes
                count += 1
                if not self.features & NET_MRG_RXBUF:
                    break
            if room >= self.waiting:
                return <int>count
            if count and not self.features & NET_MRG_RXBUF:  # a frame has one buffer then (5.1.6.4.1)
                break
            if count == self.posted.max_chains:
                break
            if vq_look(self.vq) == FR_EMPTY:
                return -NET_NO_BUFFERS
            n_before = self.posted.n_chains - self.first
            if not self.refill(self.posted.max_chains):
                return -NET_ENDED
            room, count = 0, 0
            if self.posted.n_chains == n_before:  # in more pieces than are remembered
                break
        self.drop()
        return 0

    cdef bint refill(self, uint32_t limit) noexcept nogil:
        """Take up to *limit* chains, those that were taken among them; false if the ring is broken."""
        cdef int status
        self.give_back()
        status = vq_pop_batch(self.vq, &self.posted, limit)
        if status < 0:
            self.posted.n_chains = 0
            self.die(status)
            return False
        return True

    cdef void give_back(self) noexcept nogil:
        """What was taken and not used is in the ring again."""
        cdef uint32_t i
        for i in range(self.posted.n_chains, self.first, -1):
            vq_unpop(self.vq, &self.posted.chains[i - 1])
        self.posted.n_chains = self.first = 0
