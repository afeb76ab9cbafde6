"""Commands about hashes and steering by them, of class MQ (virtio 5.1.6.5.6.4, 5.1.6.5.7.1): what they say."""

import struct
from collections.abc import Sequence

from acrn_dm.base.records import frozen
from acrn_dm.devices.virtio_net.steering._hash import FrameHash

MAX_KEY = 40  # bytes: 32 bits behind the longest input, two IPv6 addresses and two ports
MAX_TABLE = 128  # entries; both are the least that there may be (5.1.4.1), and all that drivers use
HASH_TYPES = 0x1FF  # 5.1.6.4.3.1: IP, TCP and UDP of both versions, and what IPv6 has with extension headers

HEAD = struct.Struct("<IHH")  # hash_types, indirection_table_mask, unclassified_queue; of HASH_CONFIG reserved
LE16 = struct.Struct("<H")
RESERVED = 8  # bytes of HASH_CONFIG between hash_types and the key, as long as what RSS_CONFIG has with one entry


@frozen(kw_only=True)
class Steering:
    """An RSS_CONFIG that was understood: hashes with a table of queue pairs, and how many pairs are in use by it."""

    hashes: FrameHash
    pairs: int


def parse_hashes(data: bytes) -> FrameHash | None:
    """HASH_CONFIG: hashes without a table; None for what means nothing."""
    return _hashes(data, 4 + RESERVED)


def parse_steering(data: bytes, max_pairs: int) -> Steering | None:
    """RSS_CONFIG for a card with *max_pairs*; None for what means nothing, or asks for what there is not."""
    if len(data) < HEAD.size:
        return None
    _, mask, unclassified = HEAD.unpack_from(data)
    size = mask + 1
    end = HEAD.size + 2 * size
    if size > MAX_TABLE or size & mask or len(data) < end + 2:
        return None
    table = struct.unpack_from(f"<{size}H", data, HEAD.size)
    (transmits,) = LE16.unpack_from(data, end)
    used = max(transmits, unclassified + 1, *(pair + 1 for pair in table))
    hashes = _hashes(data, end + 2, table, unclassified) if transmits >= 1 and used <= max_pairs else None
    return None if hashes is None else Steering(hashes=hashes, pairs=used)


def _hashes(data: bytes, at: int, table: Sequence[int] = (), unclassified: int = 0) -> FrameHash | None:
    """With the types at the beginning of *data* and the key, behind its length, at its end from *at* on."""
    if len(data) <= at or len(data) != at + 1 + data[at] or data[at] > MAX_KEY:
        return None
    types = int.from_bytes(data[:4], "little")
    key = data[at + 1 :]
    if types & ~HASH_TYPES or (types and not key):
        return None
    return FrameHash(types, key, table=table, unclassified=unclassified)
