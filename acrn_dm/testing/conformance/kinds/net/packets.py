"""Ethernet frames as the rules send them: IP, TCP and UDP with checksums that are done, left open or wrong."""

import struct

import attrs

NEEDS_CSUM, DATA_VALID, RSC_INFO, UDP_TUNNEL_CSUM = 1, 2, 4, 8  # virtio_net_hdr flags, 5.1.6
NONE, TCPV4, UDP, TCPV6, UDP_L4, ECN = 0, 1, 3, 4, 5, 0x80  # gso_type
TUNNEL_IPV4, TUNNEL_IPV6 = 0x20, 0x40
HEADER = struct.Struct("<BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset

BROADCAST = b"\xff" * 6
HOST = bytes.fromhex("02a000000001")
LOCAL_EXPERIMENTAL = 0x88B5  # IEEE 802: an EtherType for trials
ETHERNET, VLAN_TAG, IPV4, IPV6 = 14, 4, 20, 40
TCP_PROTOCOL, UDP_PROTOCOL = 6, 17
TCP, TCP_CSUM_AT, UDP_CSUM_AT = 20, 16, 6
CWR = 0x80  # the TCP flag that says "congestion window reduced": segmentation must not repeat it (ECN)


def header(
    flags: int = 0, gso: int = 0, hdr_len: int = 0, gso_size: int = 0, *, start: int = 0, offset: int = 0
) -> bytes:
    """The first ten bytes of struct virtio_net_hdr."""
    return HEADER.pack(flags, gso, hdr_len, gso_size, start, offset)


def checksum(data: bytes) -> int:
    """The Internet checksum's sum of *data* (RFC 1071), not complemented."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def frame(payload: bytes = b"", to: bytes = BROADCAST, *, size: int = 60, vlan: int | None = None) -> bytes:
    """A frame of no protocol that anybody knows; *vlan* tags it (802.1Q)."""
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return (to + HOST + tag + struct.pack(">H", LOCAL_EXPERIMENTAL) + payload).ljust(size, b".")


@attrs.frozen(kw_only=True)
class Flow:
    """A TCP or UDP flow from *source* to *target*, each (address, port), as packed bytes and a number."""

    source: tuple[bytes, int]
    target: tuple[bytes, int]
    protocol: int = TCP_PROTOCOL

    def reverse(self) -> "Flow":
        """The other direction."""
        return attrs.evolve(self, source=self.target, target=self.source)


@attrs.frozen(kw_only=True)
class Packet:
    """A frame of a flow, and where its transport header and checksum are. ``data`` has the checksum that was asked
    for: done, or the pseudo header's sum only, as NEEDS_CSUM wants it.
    """

    data: bytes
    start: int
    offset: int
    length: int  # of all headers


def flow(number: int = 1, *, v6: bool = False, protocol: int = TCP_PROTOCOL) -> Flow:
    """A flow from the network's host *number* to the guest."""
    host = bytes.fromhex("fd00" + "00" * 13) + bytes([number]) if v6 else bytes([10, 0, 0, number])
    guest = bytes.fromhex("fd01" + "00" * 13 + "01") if v6 else bytes([10, 0, 1, 1])
    return Flow(source=(host, 5000 + number), target=(guest, 80), protocol=protocol)


def segment(
    of: Flow, payload: bytes = b"", *, to: bytes = BROADCAST, open_checksum: bool = False, flags: int = 0x10
) -> Packet:
    """A packet of a flow; *open_checksum* leaves the pseudo header's sum in its checksum field."""
    tcp = of.protocol == TCP_PROTOCOL
    length = (TCP if tcp else 8) + len(payload)
    ports = struct.pack(">HH", of.source[1], of.target[1])
    if tcp:
        transport = ports + struct.pack(">IIBBHHH", 1, 1, 5 << 4, flags, 0xFFFF, 0, 0) + payload
    else:
        transport = ports + struct.pack(">HH", length, 0) + payload
    offset = TCP_CSUM_AT if tcp else UDP_CSUM_AT
    pseudo = checksum(of.source[0] + of.target[0] + struct.pack(">HH", of.protocol, length))
    total = pseudo if open_checksum else ~checksum(_fold(pseudo) + transport) & 0xFFFF
    transport = transport[:offset] + struct.pack(">H", total) + transport[offset + 2 :]
    network = _network(of, length)
    data = to + HOST + struct.pack(">H", 0x86DD if len(of.source[0]) == 16 else 0x0800) + network + transport
    start = ETHERNET + len(network)
    return Packet(data=data, start=start, offset=offset, length=start + length - len(payload))


def transport_sum_is_right(data: bytes) -> bool:
    """Whether the TCP or UDP checksum of a frame, IPv4 or IPv6 without options, is complete and right."""
    v6 = data[12:14] == b"\x86\xdd"
    start = ETHERNET + (IPV6 if v6 else IPV4)
    addresses = data[ETHERNET + 8 : ETHERNET + 40] if v6 else data[ETHERNET + 12 : ETHERNET + 20]
    protocol = data[ETHERNET + 6] if v6 else data[ETHERNET + 9]
    length = struct.unpack_from(">H", data, ETHERNET + (4 if v6 else 2))[0] - (0 if v6 else IPV4)
    pseudo = addresses + struct.pack(">HH", protocol, length)
    return checksum(pseudo + data[start : start + length]) == 0xFFFF


def completed(data: bytes, start: int, offset: int) -> bytes:
    """*data* with the checksum that a NEEDS_CSUM header asks for put in."""
    total = ~checksum(data[start:]) & 0xFFFF
    return data[: start + offset] + struct.pack(">H", total) + data[start + offset + 2 :]


def spoiled(packet: Packet) -> bytes:
    """The frame with a wrong checksum."""
    at = packet.start + packet.offset
    return packet.data[:at] + bytes([packet.data[at] ^ 0x55]) + packet.data[at + 1 :]


def _network(of: Flow, length: int) -> bytes:
    if len(of.source[0]) == 16:
        return struct.pack(">IHBB", 6 << 28, length, of.protocol, 64) + of.source[0] + of.target[0]
    fields = (
        struct.pack(">BBHHHBBH", 0x45, 0, IPV4 + length, 1, 0x4000, 64, of.protocol, 0) + of.source[0] + of.target[0]
    )
    return fields[:10] + struct.pack(">H", ~checksum(fields) & 0xFFFF) + fields[12:]


def _fold(total: int) -> bytes:
    return struct.pack(">H", total)
