# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""The receive filter in C, with the answers of ``ReceiveFilter.passes``."""

cdef enum:
    TAGGED = 0x8100           # 802.1Q
    VLAN_ID = 0xFFF

cdef uint64_t BROADCAST = 0xFFFFFFFFFFFF
cdef uint64_t TAKEN = 1ULL << 48    # in a slot: it has an address, which may be 0
cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15ULL  # Fibonacci hashing


cdef inline uint64_t address_of(const uint8_t *at) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(6):
        value = value << 8 | at[i]
    return value


cdef inline uint32_t slot_of(uint64_t address) noexcept nogil:
    return <uint32_t>((address * GOLDEN) >> 52)  # 4096 slots


cdef class FrameFilter:
    """The filter that *wanted*, a ``ReceiveFilter``, describes. It does not change."""

    def __cinit__(self, wanted):
        self.promisc = wanted.promisc
        self.any_group = not wanted.nomulti and (wanted.allmulti or wanted.groups is None)
        self.any_station = not wanted.nouni and (wanted.alluni or wanted.stations is None)
        self.tags = wanted.vlans is not None
        for address in wanted.known:
            self._learn(int.from_bytes(address, "big"))
        for vlan in wanted.vlans or ():
            self.vlans[<int>vlan >> 6] |= 1ULL << (<int>vlan & 63)

    cdef int _learn(self, uint64_t address) except -1:
        cdef uint32_t at = slot_of(address)
        cdef uint32_t _i
        for _i in range(<uint32_t>NET_FILTER_SLOTS):
            if self.known[at] == 0 or self.known[at] == address | TAKEN:
                self.known[at] = address | TAKEN
                return 0
            at = (at + 1) % NET_FILTER_SLOTS
        raise ValueError("too many addresses")

    cdef bint _knows(self, uint64_t address) noexcept nogil:
        cdef uint32_t at = slot_of(address)
        cdef uint32_t _i
        for _i in range(<uint32_t>NET_FILTER_SLOTS):
            if self.known[at] == 0:
                return False
            if self.known[at] == address | TAKEN:
                return True
            at = (at + 1) % NET_FILTER_SLOTS
        return False

    cdef bint passes(self, const uint8_t *head, uint32_t length) noexcept nogil:
        cdef uint64_t to
        cdef uint32_t vlan
        if self.tags and head[12] == TAGGED >> 8 and head[13] == TAGGED & 0xFF:
            if length < 16:
                return False
            vlan = (<uint32_t>head[14] << 8 | head[15]) & VLAN_ID
            if not self.vlans[vlan >> 6] >> (vlan & 63) & 1:
                return False
        if self.promisc:  # 5.1.6.5.1.1: it overrides the other modes
            return True
        to = address_of(head)
        if self._knows(to):
            return True
        if head[0] & 1:
            return to != BROADCAST and self.any_group
        return self.any_station

    def wants(self, const uint8_t[:] frame not None):
        """``ReceiveFilter.passes`` in C. Raises ValueError for less than an Ethernet header."""
        if frame.shape[0] < 14:
            raise ValueError(f"a frame of {frame.shape[0]} bytes")
        return self.passes(&frame[0], <uint32_t>frame.shape[0])
