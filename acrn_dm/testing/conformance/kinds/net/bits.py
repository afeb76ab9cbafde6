"""Feature bits of a network card (virtio 5.1.3) and what each requires (5.1.3.1)."""

from acrn_dm.testing.conformance.kinds.demand import Requires
from acrn_dm.testing.driver import VERSION_1

CSUM, GUEST_CSUM, CTRL_GUEST_OFFLOADS, MTU, MAC = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_UFO = 1 << 7, 1 << 8, 1 << 9, 1 << 10
HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO = 1 << 11, 1 << 12, 1 << 13, 1 << 14
MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX, CTRL_VLAN, CTRL_RX_EXTRA = (1 << bit for bit in range(15, 21))
GUEST_ANNOUNCE, MQ, CTRL_MAC_ADDR = 1 << 21, 1 << 22, 1 << 23
DEVICE_STATS, HASH_TUNNEL, VQ_NOTF_COAL, NOTF_COAL, GUEST_USO4, GUEST_USO6, HOST_USO = (1 << b for b in range(50, 57))
RING_RESET = 1 << 40
HASH_REPORT, RSS, RSC_EXT, SPEED_DUPLEX, RSS_CONTEXT = 1 << 57, 1 << 60, 1 << 61, 1 << 63, 1 << 64
GUEST_UDP_TUNNEL_GSO, GUEST_UDP_TUNNEL_GSO_CSUM, HOST_UDP_TUNNEL_GSO, HOST_UDP_TUNNEL_GSO_CSUM = (
    1 << bit for bit in range(65, 69)
)
OUT_NET_HEADER, IPSEC = 1 << 69, 1 << 70
GUEST_GSO = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO | GUEST_USO4 | GUEST_USO6
GUEST_OFFLOADS = GUEST_CSUM | GUEST_GSO | GUEST_ECN


def _bit(mask: int) -> int:
    return mask.bit_length() - 1


GUEST_SUMS = {_bit(f): (GUEST_CSUM,) for f in (GUEST_TSO4, GUEST_TSO6, GUEST_UFO, GUEST_USO4, GUEST_USO6)}
GUEST_ECN_NEEDS = {_bit(GUEST_ECN): (GUEST_TSO4 | GUEST_TSO6,)}
GUEST_TUNNELS = {
    _bit(GUEST_UDP_TUNNEL_GSO): (GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6),
    _bit(GUEST_UDP_TUNNEL_GSO_CSUM): (GUEST_UDP_TUNNEL_GSO,),
}
HOST_SUMS = {_bit(f): (CSUM,) for f in (HOST_TSO4, HOST_TSO6, HOST_UFO, HOST_USO)}
HOST_ECN_NEEDS = {_bit(HOST_ECN): (HOST_TSO4 | HOST_TSO6,)}
HOST_TUNNELS = {
    _bit(HOST_UDP_TUNNEL_GSO): (HOST_TSO4, HOST_TSO6, HOST_USO),
    _bit(HOST_UDP_TUNNEL_GSO_CSUM): (HOST_UDP_TUNNEL_GSO,),
}
COMMANDS = {
    _bit(f): (CTRL_VQ,) for f in (CTRL_RX, CTRL_VLAN, GUEST_ANNOUNCE, MQ, CTRL_MAC_ADDR, NOTF_COAL, RSS, VQ_NOTF_COAL)
}
COALESCED_SEGMENTS = {_bit(RSC_EXT): (HOST_TSO4 | HOST_TSO6,)}
HASHES = {_bit(HASH_TUNNEL): (CTRL_VQ, RSS | HASH_REPORT), _bit(RSS_CONTEXT): (CTRL_VQ, RSS)}
REQUIRES: Requires = {
    **GUEST_SUMS,
    **GUEST_ECN_NEEDS,
    **GUEST_TUNNELS,
    **HOST_SUMS,
    **HOST_ECN_NEEDS,
    **HOST_TUNNELS,
    **COMMANDS,
    **COALESCED_SEGMENTS,
    **HASHES,
}


def header_bytes(features: int) -> int:
    """Length of the packet header for negotiated *features* (5.1.6)."""
    for mask, size in (
        (OUT_NET_HEADER | IPSEC, 32),
        (GUEST_UDP_TUNNEL_GSO | HOST_UDP_TUNNEL_GSO, 24),
        (HASH_REPORT, 20),
        (MRG_RXBUF | VERSION_1, 12),
    ):
        if features & mask:
            return size
    return 10
