"""vhost-user on the wire: request numbers, protocol features, whole messages (QEMU's docs/interop/vhost-user.rst).

A message is a header of three little-endian u32 (request, flags, payload size), the payload, and descriptors beside the
header. Both ends use this module: the front-end in ``user`` and the devices served by ``acrn_dm.export``.
"""

import enum
import os
import struct

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.records import define

HEADER = struct.Struct("<III")  # request, flags, payload size
U64 = struct.Struct("<Q")  # the payload of most

VERSION = 1
VERSION_MASK, REPLY, NEED_REPLY = 0x3, 0x4, 0x8
MAX_PAYLOAD = 4096  # none that is spoken here exceeds 268 bytes

PROTOCOL_FEATURES = 1 << 30  # bit of the virtio features that says: there are protocol features
LOG_ALL = 1 << 26  # ... that says: note each page that is written


class ProtocolFeature(enum.IntFlag):
    """Bits of GET_PROTOCOL_FEATURES."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


class Request(enum.IntEnum):
    """The requests of a front-end."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class BackendRequest(enum.IntEnum):
    """The requests of a back-end, on the channel that SET_BACKEND_REQ_FD gave it."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2


class PeerError(HostError):
    """The peer broke the protocol, refused a request or keeps silent: no more is expected of it."""


class PeerGone(HostError):
    """The peer closed the connection: another may come."""


def name(code: int) -> str:
    """The request's name for messages."""
    return Request(code).name if code in Request._value2member_map_ else f"request {code}"


@define(kw_only=True, eq=False)
class Message:
    """One received message. It owns its *fds* until ``take_fd`` or ``close``."""

    code: int
    flags: int
    payload: bytes = b""
    fds: list[int] = attrs.field(factory=list)

    @property
    def is_reply(self) -> bool:
        """The REPLY flag."""
        return bool(self.flags & REPLY)

    @property
    def needs_reply(self) -> bool:
        """The NEED_REPLY flag."""
        return bool(self.flags & NEED_REPLY)

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        """The payload, which must be exactly *layout*. Raises PeerError."""
        if len(self.payload) != layout.size:
            raise PeerError(f"{name(self.code)} with {len(self.payload)} bytes, expected {layout.size}")
        return layout.unpack(self.payload)

    @property
    def number(self) -> int:
        """The payload as one u64. Raises PeerError."""
        return self.fields(U64)[0]

    def take_fd(self) -> int:
        """The one descriptor that came along; the caller owns it. Raises PeerError."""
        if len(self.fds) != 1:
            raise PeerError(f"{name(self.code)} with {len(self.fds)} descriptors, expected one")
        return self.fds.pop()

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        close_all(self.fds)


def close_all(fds: list[int]) -> None:
    """Close *fds* and empty the list."""
    while fds:
        os.close(fds.pop())


def encode(code: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Header and payload of a message."""
    return HEADER.pack(code, flags | VERSION, len(payload)) + payload
