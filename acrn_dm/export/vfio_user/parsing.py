"""The commands of a vfio-user client, parsed by code that trusts nothing.

What a payload says is checked here for form only: whether a region is that long, or an interrupt exists, is for those
who have them.
"""

import errno
import struct

import attrs

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Message, Refused, name
from acrn_dm.base.records import frozen


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


def _fields(what: struct.Struct, message: Message, *, more: bool = False) -> tuple[int, ...]:
    """The numbers at the payload's start, and nothing behind them unless *more*. Raises Refused."""
    size = len(message.payload)
    if size < what.size or (size > what.size and not more):
        raise Refused(f"{name(message.command)} of {size} bytes, expected {what.size}")
    return what.unpack_from(message.payload)


def parse_map(message: Message) -> MapRequest:
    """Raises Refused."""
    _, flags, offset, address, size = _fields(wire.DMA_MAP, message)
    if not flags or flags & ~(wire.MAP_READ | wire.MAP_WRITE):
        raise Refused(f"DMA_MAP with flags {flags:#x}")
    if not size or address + size > wire.ADDRESS_LIMIT or offset + size > wire.ADDRESS_LIMIT:
        raise Refused(f"DMA_MAP of {size:#x} bytes at {address:#x}")
    if len(message.fds) > 1:
        raise Refused(f"DMA_MAP with {len(message.fds)} descriptors")
    return MapRequest(flags=flags, offset=offset, address=address, size=size)


def parse_unmap(message: Message) -> UnmapRequest:
    """Raises Refused."""
    _, flags, address, size = _fields(wire.DMA_UNMAP, message)
    if flags == wire.UNMAP_ALL:
        return UnmapRequest(address=0, size=wire.ADDRESS_LIMIT)
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
    _, flags, index, start, count = _fields(wire.IRQ_SET, message, more=True)
    data, action = flags & 7, flags & ~7
    if data not in (wire.DATA_NONE, wire.DATA_BOOL, wire.DATA_EVENTFD) or action not in (
        wire.ACTION_MASK,
        wire.ACTION_UNMASK,
        wire.ACTION_TRIGGER,
    ):
        raise Refused(f"DEVICE_SET_IRQS with flags {flags:#x}")
    body = message.payload[wire.IRQ_SET.size :]
    if len(body) != (count if data == wire.DATA_BOOL else 0) or count > wire.MAX_TRANSFER:
        raise Refused(f"DEVICE_SET_IRQS of {count} interrupts with {len(body)} bytes")
    if len(message.fds) not in ((0, count) if data == wire.DATA_EVENTFD else (0,)):
        raise Refused(f"DEVICE_SET_IRQS of {count} interrupts with {len(message.fds)} descriptors")
    chosen = tuple(map(bool, body)) if data == wire.DATA_BOOL else ()
    return IrqRequest(index=index, start=start, count=count, data=data, action=action, chosen=chosen)


def _access(offset: int, region: int, count: int, most: int) -> Access:
    if not 0 < count <= most or offset + count > wire.ADDRESS_LIMIT:
        raise Refused(f"an access of {count:#x} bytes at {offset:#x} of region {region}")
    return Access(region=region, offset=offset, count=count)


def parse_read(message: Message) -> Access:
    """Raises Refused."""
    offset, region, count = _fields(wire.REGION, message)
    return _access(offset, region, count, wire.MAX_TRANSFER)


def parse_write(message: Message) -> tuple[Access, bytes]:
    """Raises Refused."""
    offset, region, count = _fields(wire.REGION, message, more=True)
    access = _access(offset, region, count, wire.MAX_TRANSFER)
    data = message.payload[wire.REGION.size :]
    if len(data) != access.count:
        raise Refused(f"REGION_WRITE of {access.count} bytes with {len(data)}")
    return access, data


def parse_multi(message: Message) -> list[tuple[Access, bytes]]:
    """All writes of a REGION_WRITE_MULTI, in their order. Raises Refused, before any of them is done."""
    (count,) = _fields(wire.MULTI_COUNT, message, more=True)
    body = message.payload[wire.MULTI_COUNT.size :]
    if len(body) != count * wire.MULTI_WRITE.size:
        raise Refused(f"REGION_WRITE_MULTI of {count} writes with {len(body)} bytes")
    return [(_access(o, r, n, 8), data[:n]) for o, r, n, data in wire.MULTI_WRITE.iter_unpack(body)]
