# cython: language_level=3, embedsignature=True, binding=True, auto_pickle=False, autotestdict=False
"""Packet headers judged in C, with the answers of ``request.transmit_header`` and ``request.receive_flags``."""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

cdef extern from "<endian.h>" nogil:
    uint16_t le16toh(uint16_t value)
    uint16_t htole16(uint16_t value)

cdef enum:
    NEEDS_CSUM = 1
    DATA_VALID = 2
    TCPV4 = 1
    TCPV6 = 4

cdef enum:
    CSUM = 1
    GUEST_CSUM = 1 << 1
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13

cdef struct Fields:           # struct virtio_net_hdr (5.1.6), little-endian
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef inline bint gso_allowed(
    uint8_t gso_type, uint64_t features, uint64_t tso4, uint64_t tso6, uint64_t ecn,
) noexcept nogil:
    """Whether the feature for this kind of segmentation was negotiated."""
    cdef uint8_t kind = gso_type & ~NET_GSO_ECN
    if gso_type & NET_GSO_ECN and not features & ecn:
        return False
    if kind == NET_GSO_NONE:
        return gso_type == NET_GSO_NONE
    return (kind == TCPV4 and features & tso4) or (kind == TCPV6 and features & tso6)


cdef bint net_clean_header(
    const uint8_t *given, uint32_t header, uint32_t frame, uint64_t features, uint8_t *clean,
) noexcept nogil:
    cdef Fields fields
    memset(clean, 0, header)
    if not given[0] & NEEDS_CSUM and given[1] == NET_GSO_NONE:
        return True
    memcpy(&fields, given, sizeof(fields))
    if not fields.flags & NEEDS_CSUM or not features & CSUM:
        return False  # 5.1.6.2.1: segmentation goes with NEEDS_CSUM, and both with CSUM
    if <uint32_t>le16toh(fields.csum_start) + le16toh(fields.csum_offset) + 2 > frame:
        return False
    if not gso_allowed(fields.gso_type, features, HOST_TSO4, HOST_TSO6, HOST_ECN):
        return False
    if fields.gso_type == NET_GSO_NONE:
        fields.hdr_len = fields.gso_size = 0
    elif fields.gso_size == 0:
        return False
    fields.flags = NEEDS_CSUM
    fields.hdr_len = htole16(<uint16_t>min(<uint32_t>le16toh(fields.hdr_len), frame))
    memcpy(clean, &fields, sizeof(fields))
    return True


cdef int net_receive_flags(const uint8_t *header, uint64_t features) noexcept nogil:
    cdef Fields fields
    memcpy(&fields, header, sizeof(fields))
    if not gso_allowed(fields.gso_type, features, GUEST_TSO4, GUEST_TSO6, GUEST_ECN):
        return -1
    if fields.gso_type != NET_GSO_NONE and not (fields.flags & NEEDS_CSUM and fields.gso_size):
        return -1
    if features & GUEST_CSUM:
        return fields.flags & (NEEDS_CSUM | DATA_VALID)
    return -1 if fields.flags & NEEDS_CSUM else 0


def transmit_header(const uint8_t[:] header not None, uint32_t frame_bytes, uint64_t features):
    """``request.transmit_header`` in C. Raises ValueError for a header that is none."""
    cdef uint8_t[NET_MAX_HEADER] clean
    if not <Py_ssize_t>sizeof(Fields) <= header.shape[0] <= NET_MAX_HEADER:
        raise ValueError(f"a packet header of {header.shape[0]} bytes")
    if not net_clean_header(&header[0], <uint32_t>header.shape[0], frame_bytes, features, clean):
        return None
    return (<char *>clean)[: header.shape[0]]


def receive_flags(const uint8_t[:] header not None, uint64_t features):
    """``request.receive_flags`` in C. Raises ValueError for a header that is none."""
    if header.shape[0] < <Py_ssize_t>sizeof(Fields):
        raise ValueError(f"a packet header of {header.shape[0]} bytes")
    cdef int flags = net_receive_flags(&header[0], features)
    return None if flags < 0 else flags
