"""Payloads of vhost-user messages: the layout of each, and how one end writes and the other reads it.

Reading raises PeerError for everything that is not such a payload. What its numbers mean is the reader's to check.
"""

import struct
from collections.abc import Sequence

from acrn_dm.backends.wire.message import U64, Message, PeerError, name

VRING_STATE = struct.Struct("<II")  # index, number
VRING_ADDR = struct.Struct("<IIQQQQ")  # index, flags, descriptor table, used ring, available ring, log
REGION = struct.Struct("<QQQQ")  # guest address, size, front-end's address, offset in the file
TABLE_HEADER = struct.Struct("<II")  # number of regions, padding
SINGLE_REGION = struct.Struct("<QQQQQ")  # padding, then as REGION
LOG = struct.Struct("<QQ")  # mmap size, mmap offset
CONFIG = struct.Struct("<III")  # offset, size, flags; the bytes follow
INFLIGHT = struct.Struct("<QQHH")  # mmap size, mmap offset, queues, queue size
INFLIGHT_PADDING = bytes(4)  # what a C compiler adds, and everybody sends

MAX_REGIONS = 8  # of one memory table, and so descriptors of one message
MAX_SLOTS = 509  # of regions that come one by one (ADD_MEM_REG); never fewer than another process said before
MAX_CONFIG = 256
VRING_F_LOG = 1 << 0  # of the flags of VRING_ADDR
INDEX_MASK, NO_FD = 0xFF, 0x100  # of the payload of SET_VRING_KICK, _CALL and _ERR
MAX_QUEUES = INDEX_MASK + 1

Region = tuple[int, int, int, int]  # as REGION


def region(gpa: int, size: int, user: int, offset: int = 0) -> bytes:
    """One region of guest memory."""
    return REGION.pack(gpa, size, user, offset)


def memory_table(regions: Sequence[bytes]) -> bytes:
    """SET_MEM_TABLE."""
    return TABLE_HEADER.pack(len(regions), 0) + b"".join(regions)


def parse_memory_table(message: Message) -> list[Region]:
    """SET_MEM_TABLE."""
    payload = message.payload
    count = TABLE_HEADER.unpack_from(payload)[0] if len(payload) >= TABLE_HEADER.size else -1
    if not 0 <= count <= MAX_REGIONS or len(payload) != TABLE_HEADER.size + count * REGION.size:
        raise PeerError(f"{name(message.code)} of {len(payload)} bytes")
    return list(REGION.iter_unpack(payload[TABLE_HEADER.size :]))


def single_region(described: bytes) -> bytes:
    """ADD_MEM_REG and REM_MEM_REG."""
    return bytes(SINGLE_REGION.size - REGION.size) + described


def parse_single_region(message: Message) -> Region:
    """ADD_MEM_REG and REM_MEM_REG."""
    _, gpa, size, user, offset = message.fields(SINGLE_REGION)
    return gpa, size, user, offset


def vring_addr(index: int, *, desc: int, avail: int, used: int) -> bytes:
    """SET_VRING_ADDR; dirty pages are not logged."""
    return VRING_ADDR.pack(index, 0, desc, used, avail, 0)


def parse_vring_addr(message: Message) -> tuple[int, int, int, int]:
    """SET_VRING_ADDR: index, and the addresses of descriptor table, available ring and used ring."""
    index, _, desc, used, avail, _ = message.fields(VRING_ADDR)
    return index, desc, avail, used


def parse_vring_log(message: Message) -> int | None:
    """SET_VRING_ADDR: the guest address by which writes of the used ring are logged; None: they are not."""
    _, flags, _, _, _, log = message.fields(VRING_ADDR)
    return log if flags & VRING_F_LOG else None


def vring_fd(index: int) -> bytes:
    """SET_VRING_KICK, _CALL and _ERR with a descriptor."""
    return U64.pack(index)


def parse_vring_fd(message: Message) -> tuple[int, bool]:
    """SET_VRING_KICK, _CALL and _ERR: index, and whether a descriptor comes along. The other bits mean nothing."""
    if message.number & ~(INDEX_MASK | NO_FD):
        raise PeerError(f"{name(message.code)} of ring {message.number:#x}")
    return message.number & INDEX_MASK, not message.number & NO_FD


def config(offset: int, data: bytes) -> bytes:
    """SET_CONFIG; GET_CONFIG, where *data* is room for the answer, and that answer."""
    return CONFIG.pack(offset, len(data), 0) + data


def parse_config(message: Message) -> tuple[int, bytes]:
    """SET_CONFIG and GET_CONFIG: offset, and the data or as much room."""
    payload = message.payload
    if len(payload) < CONFIG.size:
        raise PeerError(f"{name(message.code)} of {len(payload)} bytes")
    offset, size, _ = CONFIG.unpack_from(payload)
    if size > MAX_CONFIG or len(payload) != CONFIG.size + size:
        raise PeerError(f"{name(message.code)} of {size} bytes in {len(payload)}")
    return offset, payload[CONFIG.size :]


def inflight(size: int, offset: int, queues: int, entries: int) -> bytes:
    """GET_INFLIGHT_FD and SET_INFLIGHT_FD: a memory of *size* bytes at *offset* for queues of up to *entries*."""
    return INFLIGHT.pack(size, offset, queues, entries) + INFLIGHT_PADDING


def parse_inflight(payload: bytes) -> tuple[int, int, int, int]:
    """GET_INFLIGHT_FD and SET_INFLIGHT_FD, as ``inflight``; with or without a C compiler's padding."""
    if len(payload) not in (INFLIGHT.size, INFLIGHT.size + len(INFLIGHT_PADDING)):
        raise PeerError(f"an inflight description of {len(payload)} bytes")
    size, offset, queues, entries = INFLIGHT.unpack_from(payload)
    return size, offset, queues, entries
