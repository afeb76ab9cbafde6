# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Hashes of received frames (virtio 5.1.6.4.3): what of a frame is hashed, and the Toeplitz hash of that.

Fragments count as packets without a transport header, the first one, too, so that all of a packet go one way. Frames
come from the network: every offset is checked against their length, and every loop is bounded.
"""

from libc.string cimport memcpy, memset

# Hash types by their bit (5.1.6.4.3.1); hash_report is the bit's number plus 1 (5.1.6.4.4).
cdef enum:
    IPV4 = 0
    TCPV4 = 1
    UDPV4 = 2
    IPV6 = 3
    TCPV6 = 4
    UDPV6 = 5
    IPV6_EX = 6
    TCPV6_EX = 7
    UDPV6_EX = 8
    N_TYPES = 9

cdef enum:
    ETHERNET = 14
    TAG = 4
    MAX_TAGS = 2              # 802.1ad: one within another
    MAX_EXTENSIONS = 8        # extension headers that are passed over; behind more there is no transport header
    MAX_OPTIONS = 16          # options of a header that are looked at for a home address
    TCP = 6
    UDP = 17
    HOP_BY_HOP = 0
    ROUTING = 43
    FRAGMENT = 44
    AUTHENTICATION = 51
    DESTINATION = 60
    MOBILITY = 135
    HOME_ADDRESS = 0xC9       # RFC 6275, 6.3
    PAD1 = 0
    ROUTING_TYPE_2 = 2        # RFC 6275, 6.4

# What was found in a frame: offsets from its beginning, 0 for what is not there.
cdef struct Found:
    uint32_t source           # addresses, as they stand in the IP header
    uint32_t target
    uint32_t home             # those that extension headers have instead
    uint32_t routed
    uint32_t ports
    uint8_t protocol          # TCP or UDP with *ports*, else anything
    bint v6
    bint extended             # there are extension headers


cdef inline uint32_t be16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef void transport(Found *found, uint8_t protocol, uint32_t at, uint32_t length) noexcept nogil:
    """The transport header, if it is one with ports that are there."""
    if (protocol == TCP or protocol == UDP) and at + 4 <= length:
        found.ports, found.protocol = at, protocol


cdef bint find_v4(Found *found, const uint8_t *frame, uint32_t at, uint32_t length) noexcept nogil:
    cdef uint32_t size
    if at + 20 > length or frame[at] >> 4 != 4:
        return False
    size = (frame[at] & 15) * 4
    if size < 20:
        return False
    found.source, found.target = at + 12, at + 16
    if be16(frame + at + 6) & 0x3FFF == 0:  # neither MF nor an offset: no fragment
        transport(found, frame[at + 9], at + size, length)
    return True


cdef void find_home(Found *found, const uint8_t *frame, uint32_t at, uint32_t end) noexcept nogil:
    """The home address among the destination options from *at* to *end*."""
    cdef int _option
    for _option in range(MAX_OPTIONS):
        if at + 2 > end:
            return
        if frame[at] == PAD1:
            at += 1
            continue
        if frame[at] == HOME_ADDRESS and frame[at + 1] == 16 and at + 18 <= end:
            found.home = at + 2
            return
        at += 2 + <uint32_t>frame[at + 1]


cdef void find_behind(Found *found, const uint8_t *frame, uint32_t at, uint32_t length, uint8_t kind) noexcept nogil:
    """Pass over the extension headers from *at* on, the first of *kind*."""
    cdef uint32_t size
    cdef int _header
    for _header in range(MAX_EXTENSIONS):
        if kind not in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY):
            transport(found, kind, at, length)
            return
        found.extended = True
        if at + 8 > length:
            return
        size = 8 + 8 * <uint32_t>frame[at + 1]
        if kind == AUTHENTICATION:
            size = 8 + 4 * <uint32_t>frame[at + 1]
        elif kind == FRAGMENT:
            size = 8
            if be16(frame + at + 2) & 0xFFF9:  # an offset, or more to come
                return
        if at + size > length:
            return
        if kind == DESTINATION:
            find_home(found, frame, at + 2, at + size)
        elif kind == ROUTING and frame[at + 2] == ROUTING_TYPE_2 and size >= 24:
            found.routed = at + 8
        kind = frame[at]
        at += size


cdef bint find_v6(Found *found, const uint8_t *frame, uint32_t at, uint32_t length) noexcept nogil:
    if at + 40 > length or frame[at] >> 4 != 6:
        return False
    found.v6 = True
    found.source, found.target = at + 8, at + 24
    find_behind(found, frame, at + 40, length, frame[at + 6])
    return True


cdef bint find(Found *found, const uint8_t *frame, uint32_t length) noexcept nogil:
    """Look for what can be hashed; false where *frame* is no IP."""
    cdef uint32_t at = ETHERNET
    cdef uint32_t kind
    cdef int _tag
    memset(found, 0, sizeof(Found))
    if length < ETHERNET:
        return False
    kind = be16(frame + 12)
    for _tag in range(MAX_TAGS):
        if kind not in (0x8100, 0x88A8) or at + TAG > length:
            break
        kind = be16(frame + at + 2)
        at += TAG
    if kind == 0x0800:
        return find_v4(found, frame, at, length)
    return kind == 0x86DD and find_v6(found, frame, at, length)


cdef int choose(uint32_t types, const Found *found) noexcept nogil:
    """The type of the hash: TCP, else UDP, else IP, of those that are enabled; -1 for none."""
    cdef int first = IPV6 if found.v6 else IPV4
    if found.extended:
        if found.protocol == TCP and types >> TCPV6_EX & 1:
            return TCPV6_EX
        if found.protocol == UDP and types >> UDPV6_EX & 1:
            return UDPV6_EX
        if types >> IPV6_EX & 1:
            return IPV6_EX
    if found.protocol == TCP and types >> (first + 1) & 1:
        return first + 1
    if found.protocol == UDP and types >> (first + 2) & 1:
        return first + 2
    return first if types >> first & 1 else -1


cdef uint32_t collect(const Found *found, int kind, const uint8_t *frame, uint8_t *into) noexcept nogil:
    """Put what a hash of *kind* is over into *into*; how many bytes."""
    cdef uint32_t size = 16 if found.v6 else 4
    cdef uint32_t source = found.home if kind >= IPV6_EX and found.home else found.source
    cdef uint32_t target = found.routed if kind >= IPV6_EX and found.routed else found.target
    memcpy(into, frame + source, size)
    memcpy(into + size, frame + target, size)
    if kind in (IPV4, IPV6, IPV6_EX):
        return 2 * size
    memcpy(into + 2 * size, frame + found.ports, 4)
    return 2 * size + 4


cdef class FrameHash:
    """Hashes of *types* by *key*, which counts as followed by zeroes; with a *table* of queue pairs, a power of two of
    them, frames are steered by it, and those without a hash to the pair *unclassified*. Raises ValueError.

    One value from its making on: whoever moves frames has one or another and never a mixture.
    """

    def __cinit__(self, uint32_t types, bytes key not None, *, table=(), uint16_t unclassified=0):
        if types >> N_TYPES or len(key) > NET_HASH_KEY or len(table) > NET_HASH_TABLE:
            raise ValueError(f"hash types {types:#x}, a key of {len(key)} bytes, a table of {len(table)}")
        if len(table) & (len(table) - 1):
            raise ValueError(f"{len(table)} entries are no power of two")
        self.types, self.key = types, key
        self.unclassified, self.steers = unclassified, len(table) > 0
        self.mask = max(1, len(table)) - 1
        for i, pair in enumerate(table):
            self.table[i] = pair
        self._multiply(int.from_bytes(key.ljust(NET_HASH_KEY, b"\0"), "big"))

    def _multiply(self, key):
        """A bit of the input that is set adds the 32 bits of the key that begin at its place."""
        for place in range(2 * NET_HASH_INPUT):
            windows = [key >> (8 * NET_HASH_KEY - 32 - 4 * place - bit) & 0xFFFF_FFFF for bit in range(4)]
            for value in range(16):
                product = 0
                for bit in range(4):
                    product ^= windows[bit] if value >> (3 - bit) & 1 else 0
                self.products[place][value] = product

    def unsteered(self):
        """The same hashes without a table."""
        return FrameHash(self.types, self.key)

    def hash(self, const uint8_t[::1] frame not None):
        """(hash_value, hash_report) of *frame*, from its Ethernet header on."""
        cdef uint16_t report = 0
        cdef uint32_t value = 0
        if frame.shape[0] > 0:
            value = self.of(&frame[0], <uint32_t>frame.shape[0], &report)
        return value, report

    def pair(self, uint32_t value, uint16_t report):
        """The queue pair that a frame with this hash goes to, where there is a table."""
        return self.pair_of(value, report)

    def raw(self, const uint8_t[::1] data not None):
        """The Toeplitz hash of up to 36 bytes. Raises ValueError for more."""
        if not 0 < data.shape[0] <= NET_HASH_INPUT:
            raise ValueError(f"{data.shape[0]} bytes to be hashed")
        return self.toeplitz(&data[0], <uint32_t>data.shape[0])

    cdef uint32_t toeplitz(self, const uint8_t *data, uint32_t n) noexcept nogil:
        cdef uint32_t value = 0
        cdef uint32_t i
        for i in range(n):
            value ^= self.products[2 * i][data[i] >> 4] ^ self.products[2 * i + 1][data[i] & 15]
        return value

    cdef uint32_t of(self, const uint8_t *frame, uint32_t length, uint16_t *report) noexcept nogil:
        cdef uint8_t[NET_HASH_INPUT] data
        cdef Found found
        cdef int kind = -1
        report[0] = 0
        if self.types and find(&found, frame, min(length, <uint32_t>NET_HASH_LOOKED_AT)):
            kind = choose(self.types, &found)
        if kind < 0:
            return 0
        report[0] = <uint16_t>(kind + 1)
        return self.toeplitz(data, collect(&found, kind, frame, data))
