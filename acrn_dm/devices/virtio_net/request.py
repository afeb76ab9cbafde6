"""Packet headers (virtio 5.1.6): what stands before each frame, checked in both directions.

The header's first ten bytes are the kernel's ``virtio_net_hdr`` too, so the tap does the offloads and we only see to it
that neither side gets what was not negotiated.

| bytes | field | |
|---|---|---|
| 0 | flags | NEEDS_CSUM 1, DATA_VALID 2 |
| 1 | gso_type | 0 none, 1 TCPv4, 4 TCPv6; 0x80 ECN |
| 2, 4 | hdr_len, gso_size | le16, a hint and the segment size |
| 6, 8 | csum_start, csum_offset | le16, with NEEDS_CSUM |
| 10 | num_buffers | le16, rx only; absent for legacy drivers without MRG_RXBUF |
| 12 | hash_value | le32, rx only, with HASH_REPORT |
| 16, 18 | hash_report, padding | le16, rx only, with HASH_REPORT |
"""

import struct

from acrn_dm.virtio.features import VERSION_1

CTRL_GUEST_OFFLOADS, CTRL_VQ, MQ = 1 << 2, 1 << 17, 1 << 22  # feature bits, 5.1.3
CSUM, GUEST_CSUM, MAC = 1 << 0, 1 << 1, 1 << 5
GUEST_TSO4, GUEST_TSO6, GUEST_ECN = 1 << 7, 1 << 8, 1 << 9
HOST_TSO4, HOST_TSO6, HOST_ECN = 1 << 11, 1 << 12, 1 << 13
MRG_RXBUF, STATUS = 1 << 15, 1 << 16
MTU, CTRL_RX, CTRL_VLAN, CTRL_RX_EXTRA = 1 << 3, 1 << 18, 1 << 19, 1 << 20
GUEST_ANNOUNCE, CTRL_MAC_ADDR, SPEED_DUPLEX = 1 << 21, 1 << 23, 1 << 63
VQ_NOTF_COAL, NOTF_COAL, HASH_REPORT, RSS = 1 << 52, 1 << 53, 1 << 57, 1 << 60
COALESCING = NOTF_COAL | VQ_NOTF_COAL
RX_QUEUE, TX_QUEUE = 0, 1  # a data queue's index modulo 2 (5.1.2)
FILTERS = CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA
GUEST_OFFLOADS = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN
OFFLOADS = CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | HOST_TSO4 | HOST_TSO6 | HOST_ECN

NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN = 0, 1, 4, 0x80

FIELDS = struct.Struct("<BBHHHH")
REPORT = struct.Struct("<IHH")  # hash_value, hash_report and padding, behind num_buffers
HASH_HEADER = 20
LONG_HEADER = 12
SHORT_HEADER = 10
NO_OFFLOAD = {size: bytes(size) for size in (SHORT_HEADER, LONG_HEADER, HASH_HEADER)}
MIN_FRAME = 14  # an Ethernet header
MAX_FRAME = 14 + 4 + 65535  # Ethernet header, VLAN tag, the largest IP packet: what segmentation offload can produce


def header_bytes(features: int) -> int:
    """Length of the header for negotiated *features* (5.1.6.1: num_buffers is always there in the modern interface)."""
    if features & HASH_REPORT:
        return HASH_HEADER
    return LONG_HEADER if features & (VERSION_1 | MRG_RXBUF) else SHORT_HEADER


def transmit_header(header: bytes, frame_bytes: int, features: int) -> bytes | None:
    """Return what the tap gets for *header*, which the guest wrote before *frame_bytes* of frame; None: drop the frame.

    Flags nobody knows are ignored, fields without NEEDS_CSUM are not used (5.1.6.2.2), offloads that were not
    negotiated and fields that point out of the frame make it malformed. ``hdr_len`` is no more than a hint, so it is
    cut to fit.
    """
    flags, gso_type = header[0], header[1]
    if not flags & NEEDS_CSUM and gso_type == GSO_NONE:
        return NO_OFFLOAD[len(header)]
    _, _, hdr_len, gso_size, csum_start, csum_offset = FIELDS.unpack_from(header)
    if not flags & NEEDS_CSUM or not features & CSUM:
        return None  # 5.1.6.2.1: segmentation goes with NEEDS_CSUM, and both with CSUM
    if csum_start + csum_offset + 2 > frame_bytes:
        return None
    if not gso_allowed(gso_type, features, HOST_TSO4, HOST_TSO6, HOST_ECN):
        return None
    if gso_type == GSO_NONE:
        hdr_len = gso_size = 0
    elif gso_size == 0:
        return None
    clean = FIELDS.pack(NEEDS_CSUM, gso_type, min(hdr_len, frame_bytes), gso_size, csum_start, csum_offset)
    return clean + bytes(len(header) - SHORT_HEADER)


def receive_flags(header: bytes | memoryview, features: int) -> int | None:
    """Return the flags the guest gets with a packet *header* of the tap's; None when it can't take the frame as it is.

    The tap obeys what we set, but frames that were queued before come with the offloads of then, and those of another
    virtual machine with what that wrote. Segmentation goes with NEEDS_CSUM and a segment size (5.1.6.4.1).
    """
    flags, gso_type, _, gso_size, _, _ = FIELDS.unpack_from(header)
    if not gso_allowed(gso_type, features, GUEST_TSO4, GUEST_TSO6, GUEST_ECN):
        return None
    if gso_type != GSO_NONE and not (flags & NEEDS_CSUM and gso_size):
        return None
    if features & GUEST_CSUM:
        return int(flags & (NEEDS_CSUM | DATA_VALID))
    return None if flags & NEEDS_CSUM else 0


def gso_allowed(gso_type: int, features: int, tso4: int, tso6: int, ecn: int) -> bool:
    """Whether the feature for this kind of segmentation was negotiated."""
    if gso_type & GSO_ECN and not features & ecn:
        return False
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return gso_type == GSO_NONE
    return bool((kind == GSO_TCPV4 and features & tso4) or (kind == GSO_TCPV6 and features & tso6))
