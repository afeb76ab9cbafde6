"""The driver's side of hashes (virtio 5.1.6.4.3): the Toeplitz hash by its definition, and the commands about it."""

import struct
from collections.abc import Sequence

from acrn_dm.testing.conformance.kinds.net.packets import TCP_PROTOCOL, Flow

RSS_CONFIG, HASH_CONFIG = (4, 1), (4, 2)
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
REPORT_AT = 12  # in the packet header: le32 hash_value, le16 hash_report
NONE, IPV4, TCPV4, UDPV4, IPV6, TCPV6, UDPV6 = range(7)  # hash_report


def types(*reports: int) -> int:
    """The hash types of these reports."""
    return sum(1 << report - 1 for report in reports)


def toeplitz(data: bytes, key: bytes = KEY) -> int:
    """The sum of the 32 bits of *key* from each place on at which *data* has a bit set."""
    whole, bits, value = int.from_bytes(key, "big"), 8 * len(key), 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            value ^= whole >> (bits - 32 - place) & 0xFFFF_FFFF
    return value


def addresses(of: Flow) -> bytes:
    """What an IP hash is over."""
    return of.source[0] + of.target[0]


def with_ports(of: Flow) -> bytes:
    """What a TCP or UDP hash is over."""
    return addresses(of) + struct.pack(">HH", of.source[1], of.target[1])


def kind_of(of: Flow) -> int:
    """The report of a packet of the flow where its transport's type is enabled."""
    return (IPV6 if len(of.source[0]) == 16 else IPV4) + (1 if of.protocol == TCP_PROTOCOL else 2)


def hash_config(enabled: int, key: bytes = KEY) -> bytes:
    """The data of HASH_CONFIG."""
    return struct.pack("<I8xB", enabled, len(key)) + key


def rss_config(enabled: int, table: Sequence[int], unclassified: int, transmits: int, key: bytes = KEY) -> bytes:
    """The data of RSS_CONFIG; *table* and *unclassified* are queue pairs."""
    head = struct.pack("<IHH", enabled, len(table) - 1, unclassified)
    return head + struct.pack(f"<{len(table)}HHB", *table, transmits, len(key)) + key
