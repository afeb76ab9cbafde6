"""vfio-user on the wire: commands, structures and whole messages, for both ends (protocol 0.0, libvfio-user's docs).

A message is a header of 16 little-endian bytes (id, command, size with the header, flags, errno), the payload, and
descriptors beside the header.
"""

import enum
import errno
import struct

import attrs

from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.base.records import define

HEADER = struct.Struct("<HHIII")
VERSION = struct.Struct("<HH")  # major, minor; then JSON and a NUL
DMA_MAP = struct.Struct("<IIQQQ")  # argsz, flags, offset, address, size
DMA_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, address, size
DEVICE_INFO = struct.Struct("<IIII")  # argsz, flags, regions, interrupts
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, capabilities, size, offset
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
REGION_FDS = struct.Struct("<IIII")  # argsz, flags, index, count; then sub-regions
IRQ_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count; then data
REGION = struct.Struct("<QII")  # offset, region, count; then data
DMA = struct.Struct("<QQ")  # address, count; then data
MULTI_COUNT = struct.Struct("<Q")
MULTI_WRITE = struct.Struct("<QII8s")  # offset, region, count, data

TYPE_MASK, COMMAND, REPLY, NO_REPLY, ERROR = 0xF, 0x0, 0x1, 0x10, 0x20
KNOWN_FLAGS = TYPE_MASK | NO_REPLY | ERROR
MAX_TRANSFER = 1 << 20
MAX_SIZE = HEADER.size + 64 + MAX_TRANSFER
MAX_FDS = 16
MAX_MAPS = 8192
ADDRESS_LIMIT = 1 << 64
MAP_READ, MAP_WRITE = 1, 2
UNMAP_ALL = 2
DATA_NONE, DATA_BOOL, DATA_EVENTFD, ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER = 1, 2, 4, 8, 16, 32


class Command(enum.IntEnum):
    """Commands of a client; DMA_READ and DMA_WRITE are the server's."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15


class Refused(PeerError):
    """A command that is answered by an error; the connection goes on."""

    def __init__(self, message: str, err: int = errno.EINVAL) -> None:
        super().__init__(message, err=err)
        self.code = err


@define(eq=False)
class Message:
    """One message. It owns the descriptors that nobody has taken."""

    id: int
    command: int
    flags: int
    error: int
    payload: bytes = attrs.field(repr=False)
    fds: list[int]

    @property
    def is_reply(self) -> bool:
        """Whether it answers one of ours."""
        return self.flags & TYPE_MASK == REPLY

    @property
    def wants_reply(self) -> bool:
        """Whether its sender waits."""
        return not self.flags & NO_REPLY

    def close(self) -> None:
        """Close what was not taken."""
        close_all(self.fds)


def name(command: int) -> str:
    """How messages name *command*."""
    return Command(command).name if command in Command._value2member_map_ else f"command {command}"


def encode(ident: int, command: int, payload: bytes = b"", *, flags: int = COMMAND, error: int = 0) -> bytes:
    """A whole message."""
    return HEADER.pack(ident, command, HEADER.size + len(payload), flags, error) + payload


def payload_size(header: bytes | bytearray) -> int:
    """How many bytes follow *header*. Raises PeerError for one after which nothing can be trusted."""
    _, command, size, flags, _ = HEADER.unpack(header)
    if flags & TYPE_MASK not in (COMMAND, REPLY) or flags & ~KNOWN_FLAGS:
        raise PeerError(f"{name(command)} with flags {flags:#x}")
    if not HEADER.size <= size <= MAX_SIZE:
        raise PeerError(f"{name(command)} announces {size} bytes")
    return int(size) - HEADER.size


def decode(data: bytes, fds: list[int]) -> Message:
    """The message of *data*, which is complete."""
    ident, command, _, flags, error = HEADER.unpack_from(data)
    return Message(id=ident, command=command, flags=flags, error=error, payload=data[HEADER.size :], fds=fds)
