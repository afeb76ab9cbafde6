"""Block requests as the guest wrote them (virtio 5.2.6): parsed and checked, not executed.

A request is a device-readable header and data, then device-writable data and one status byte at the very end.
Descriptor boundaries mean nothing (2.6.4). Every range is checked as a whole, before anything is executed.
"""

import enum
import struct

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import frozen
from acrn_dm.devices.virtio_blk.config import SECTOR

HEADER = struct.Struct("<IIQ")  # type, reserved (ioprio), sector
SEGMENT = struct.Struct("<QII")  # sector, num_sectors, flags: one range of a discard or write-zeroes request (5.2.6)
BARRIER = 1 << 31  # legacy, never offered: a legacy driver that sets it anyway gets the plain request, as from QEMU
UNMAP = 1  # segment flag
LIFETIME_BYTES = 6  # struct virtio_blk_lifetime


class Status(enum.IntEnum):
    """The byte at the end of every request."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class Op(enum.Enum):
    """The operation that is asked for."""

    READ = enum.auto()
    WRITE = enum.auto()
    FLUSH = enum.auto()
    GET_ID = enum.auto()
    DISCARD = enum.auto()
    WRITE_ZEROES = enum.auto()
    SECURE_ERASE = enum.auto()
    GET_LIFETIME = enum.auto()


TYPES = {  # 5.2.6; 5 is the legacy synonym of FLUSH
    0: Op.READ,
    1: Op.WRITE,
    4: Op.FLUSH,
    5: Op.FLUSH,
    8: Op.GET_ID,
    10: Op.GET_LIFETIME,
    11: Op.DISCARD,
    13: Op.WRITE_ZEROES,
    14: Op.SECURE_ERASE,
}
CHANGES_MEDIUM = frozenset({Op.WRITE, Op.DISCARD, Op.WRITE_ZEROES, Op.SECURE_ERASE})


@frozen
class Extent:
    """A range of the medium in bytes; *unmap* allows to deallocate it (write zeroes)."""

    offset: int
    length: int
    unmap: bool = False


@frozen
class Request:
    """A request that may be executed: everything lies within the medium. *extents* is empty for flush and get-id."""

    op: Op
    extents: tuple[Extent, ...] = ()


@frozen(kw_only=True)
class Limits:
    """The limits that requests are checked against. Sectors are of 512 bytes; 0 segments: that type is not on offer."""

    capacity: int
    legacy: bool = False  # the driver's kind: for it a type may carry BARRIER
    readonly: bool = False
    discard_segments: int = 0
    discard_sectors: int = 0
    zeroes_segments: int = 0
    zeroes_sectors: int = 0
    erase_segments: int = 0
    erase_sectors: int = 0
    lifetime: bool = False  # GET_LIFETIME is on offer

    def of_ranges(self, op: Op) -> tuple[int, int]:
        """Segments, and sectors of one, of a request that consists of ranges."""
        if op is Op.DISCARD:
            return self.discard_segments, self.discard_sectors
        if op is Op.WRITE_ZEROES:
            return self.zeroes_segments, self.zeroes_sectors
        return self.erase_segments, self.erase_sectors


def parse(chain: Chain, limits: Limits) -> Request | Status:
    """Read header and segments of *chain*; a Status is the answer to a request that must not be executed.

    Raises GuestError when there is no room even for the status byte.
    """
    if chain.writable_bytes < 1:
        raise GuestError("block request without room for the status byte")
    header = chain.read(HEADER.size)
    if len(header) < HEADER.size:
        return Status.IOERR
    kind, _, sector = HEADER.unpack(header)
    op = TYPES.get(kind & ~BARRIER if limits.legacy else kind)
    if op is None:
        return Status.UNSUPP
    if limits.readonly and op in CHANGES_MEDIUM:
        return Status.IOERR  # 5.2.6.2, also when the driver did not accept RO
    if op is Op.READ:
        return _transfer(op, sector, chain.writable_bytes - 1, limits)
    if op is Op.WRITE:
        return _transfer(op, sector, chain.readable_bytes - HEADER.size, limits)
    if op in (Op.DISCARD, Op.WRITE_ZEROES, Op.SECURE_ERASE):
        return _segments(op, chain, limits)
    return _lifetime(op, chain, limits) if op is Op.GET_LIFETIME else Request(op)


def _lifetime(op: Op, chain: Chain, limits: Limits) -> Request | Status:
    if not limits.lifetime:
        return Status.UNSUPP
    return Request(op) if chain.writable_bytes > LIFETIME_BYTES else Status.IOERR


def _transfer(op: Op, sector: int, length: int, limits: Limits) -> Request | Status:
    """Check the sum of all data against the capacity; Python's integers do not wrap."""
    if length % SECTOR or sector + length // SECTOR > limits.capacity:
        return Status.IOERR
    return Request(op, (Extent(sector * SECTOR, length),))


def _segments(op: Op, chain: Chain, limits: Limits) -> Request | Status:
    max_segments, max_sectors = limits.of_ranges(op)
    if max_segments == 0:
        return Status.UNSUPP
    size = chain.readable_bytes - HEADER.size
    if size == 0 or size % SEGMENT.size or size // SEGMENT.size > max_segments:
        return Status.IOERR
    extents = []
    allowed = UNMAP if op is Op.WRITE_ZEROES else 0
    for sector, sectors, flags in SEGMENT.iter_unpack(chain.read(size)):
        if flags & ~allowed:  # 5.2.6.2: unknown flags, and unmap where nothing is zeroed
            return Status.UNSUPP
        if sectors > max_sectors or sector + sectors > limits.capacity:
            return Status.IOERR
        extents.append(Extent(sector * SECTOR, sectors * SECTOR, bool(flags & UNMAP)))
    return Request(op, tuple(extents))
