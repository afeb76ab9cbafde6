"""vfio-user on the wire: commands, structures, and parsers that trust nothing (protocol 0.0).

A message is a header of 16 little-endian bytes (id, command, size with the header, flags, errno), the payload, and
descriptors beside the header. What a payload says is checked here for form only: whether a region is that long, or an
interrupt exists, is for those who have them.
"""

import enum
import errno
import json
import struct

import attrs

from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.base.records import define, frozen

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
    """Commands; the DMA ones are ours to send."""

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


@frozen(kw_only=True)
class Access:
    """A stretch of a region."""

    region: int
    offset: int = attrs.field(repr=hex)
    count: int


@frozen(kw_only=True)
class MapRequest:
    """DMA_MAP."""

    flags: int
    offset: int = attrs.field(repr=hex)
    address: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class UnmapRequest:
    """DMA_UNMAP."""

    address: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class IrqRequest:
    """DEVICE_SET_IRQS. *chosen*: which of the interrupts from *start* on are meant."""

    index: int
    start: int
    count: int
    data: int
    action: int
    chosen: tuple[bool, ...] = attrs.field(repr=False)


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


def _fields(what: struct.Struct, message: Message, *, more: bool = False) -> tuple[int, ...]:
    """The numbers at the payload's start, and nothing behind them unless *more*. Raises Refused."""
    size = len(message.payload)
    if size < what.size or (size > what.size and not more):
        raise Refused(f"{name(message.command)} of {size} bytes, expected {what.size}")
    return what.unpack_from(message.payload)


def parse_version(message: Message) -> tuple[int, int, dict[str, object]]:
    """Major, minor, capabilities. Raises PeerError: without them there is no connection."""
    size = len(message.payload)
    if size < VERSION.size:
        raise PeerError(f"VERSION of {size} bytes")
    major, minor = VERSION.unpack_from(message.payload)
    text = message.payload[VERSION.size :]
    if not text:
        return major, minor, {}
    if not text.endswith(b"\0"):
        raise PeerError("VERSION whose JSON has no end")
    try:
        said = json.loads(text[:-1] or b"{}")
    except (ValueError, RecursionError) as e:
        raise PeerError(f"VERSION whose JSON can't be read: {e}") from e
    capabilities = said.get("capabilities", {}) if isinstance(said, dict) else None
    if not isinstance(capabilities, dict):
        raise PeerError("VERSION whose capabilities are no object")
    return major, minor, capabilities


def limit(capabilities: dict[str, object], key: str, otherwise: int) -> int:
    """A positive number among *capabilities*, *otherwise* at most. Raises PeerError."""
    value = capabilities.get(key, otherwise)
    if type(value) is not int or value <= 0:
        raise PeerError(f"VERSION whose {key} is {value!r:.40}")
    return min(value, otherwise)


def version_reply(room: int, *, multi: bool) -> bytes:
    """Our version with the capabilities that fit into *room* bytes: clients have no more for the answer."""
    said: dict[str, object] = {"max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER, "pgsizes": 4096}
    if multi:
        said = {"write_multiple": True, **said}
    while said:
        text = json.dumps({"capabilities": said}, separators=(",", ":")).encode() + b"\0"
        if VERSION.size + len(text) <= room:
            return VERSION.pack(0, 0) + text
        said.popitem()
    return VERSION.pack(0, 0) + (b"{}\0" if room >= VERSION.size + 3 else b"\0" * (room > VERSION.size))


def parse_map(message: Message) -> MapRequest:
    """Raises Refused."""
    _, flags, offset, address, size = _fields(DMA_MAP, message)
    if not flags or flags & ~(MAP_READ | MAP_WRITE):
        raise Refused(f"DMA_MAP with flags {flags:#x}")
    if not size or address + size > ADDRESS_LIMIT or offset + size > ADDRESS_LIMIT:
        raise Refused(f"DMA_MAP of {size:#x} bytes at {address:#x}")
    if len(message.fds) > 1:
        raise Refused(f"DMA_MAP with {len(message.fds)} descriptors")
    return MapRequest(flags=flags, offset=offset, address=address, size=size)


def parse_unmap(message: Message) -> UnmapRequest:
    """Raises Refused."""
    _, flags, address, size = _fields(DMA_UNMAP, message)
    if flags == UNMAP_ALL:
        return UnmapRequest(address=0, size=ADDRESS_LIMIT)
    if flags:
        raise Refused(f"DMA_UNMAP with flags {flags:#x}", errno.ENOTSUP)
    return UnmapRequest(address=address, size=size)


def parse_info(message: Message, what: struct.Struct) -> int:
    """The third number of GET_INFO, and of what is asked of a region or a kind of interrupts: their index. Raises
    Refused where the client has no room for *what*, which is the answer.
    """
    argsz, _, index, *_ = _fields(what, message, more=True)
    if argsz < what.size:
        raise Refused(f"{name(message.command)} with room for {argsz} bytes")
    return index


def parse_irqs(message: Message) -> IrqRequest:
    """Raises Refused."""
    _, flags, index, start, count = _fields(IRQ_SET, message, more=True)
    data, action = flags & 7, flags & ~7
    if data not in (DATA_NONE, DATA_BOOL, DATA_EVENTFD) or action not in (ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER):
        raise Refused(f"DEVICE_SET_IRQS with flags {flags:#x}")
    body = message.payload[IRQ_SET.size :]
    if len(body) != (count if data == DATA_BOOL else 0) or count > MAX_TRANSFER:
        raise Refused(f"DEVICE_SET_IRQS of {count} interrupts with {len(body)} bytes")
    if len(message.fds) not in ((0, count) if data == DATA_EVENTFD else (0,)):
        raise Refused(f"DEVICE_SET_IRQS of {count} interrupts with {len(message.fds)} descriptors")
    chosen = tuple(map(bool, body)) if data == DATA_BOOL else ()
    return IrqRequest(index=index, start=start, count=count, data=data, action=action, chosen=chosen)


def _access(offset: int, region: int, count: int, most: int) -> Access:
    if not 0 < count <= most or offset + count > ADDRESS_LIMIT:
        raise Refused(f"an access of {count:#x} bytes at {offset:#x} of region {region}")
    return Access(region=region, offset=offset, count=count)


def parse_read(message: Message) -> Access:
    """Raises Refused."""
    offset, region, count = _fields(REGION, message)
    return _access(offset, region, count, MAX_TRANSFER)


def parse_write(message: Message) -> tuple[Access, bytes]:
    """Raises Refused."""
    offset, region, count = _fields(REGION, message, more=True)
    access = _access(offset, region, count, MAX_TRANSFER)
    data = message.payload[REGION.size :]
    if len(data) != access.count:
        raise Refused(f"REGION_WRITE of {access.count} bytes with {len(data)}")
    return access, data


def parse_multi(message: Message) -> list[tuple[Access, bytes]]:
    """All writes of a REGION_WRITE_MULTI, in their order. Raises Refused, before any of them is done."""
    (count,) = _fields(MULTI_COUNT, message, more=True)
    body = message.payload[MULTI_COUNT.size :]
    if len(body) != count * MULTI_WRITE.size:
        raise Refused(f"REGION_WRITE_MULTI of {count} writes with {len(body)} bytes")
    return [(_access(o, r, n, 8), data[:n]) for o, r, n, data in MULTI_WRITE.iter_unpack(body)]
