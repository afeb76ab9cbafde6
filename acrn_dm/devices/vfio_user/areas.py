"""Areas of a region that its server has in a file, for the client to map: all of the region, or what a capability of
its description says (linux/vfio.h, VFIO_REGION_INFO_CAP_SPARSE_MMAP).
"""

import mmap
import struct
from collections.abc import Iterable, Iterator

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import device as numbers
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.base.records import frozen

CAPABILITY = struct.Struct("<HHI")  # id, version, where the next one is
SPARSE = 1
COUNT = struct.Struct("<II")  # of areas, behind the capability's header; reserved
AREA = struct.Struct("<QQ")  # offset, size
MOST = 64  # of a region: each costs the hypervisor a slot
FILE_LIMIT = 1 << 63


@frozen(kw_only=True)
class Area:
    """*size* bytes of a BAR from *offset* on, which stand at *at* in the file: all three are multiples of a page."""

    offset: int
    size: int
    at: int


def mapped_areas(answer: bytes, size: int) -> tuple[Area, ...]:
    """Those that *answer* to DEVICE_GET_REGION_INFO tells of, for a region of *size* bytes. Those that are no whole
    pages are left out. Raises PeerError for what can't be.
    """
    needed, flags, index, first, _, at = wire.REGION_INFO.unpack_from(answer)
    if not flags & numbers.MAPPED or flags & (numbers.READ | numbers.WRITE) != numbers.READ | numbers.WRITE:
        return ()
    said: Iterable[tuple[int, int]] = [(0, size)]
    if flags & numbers.HAS_CAPABILITIES:
        if needed > len(answer):  # more of them than there is room for: it is not known which areas there are
            return ()
        said = next((_sparse(answer, place) for id_, place in _walk(answer, first) if id_ == SPARSE), said)
    areas = []
    for offset, length in said:
        if offset + length > size or at + offset + length > FILE_LIMIT:
            raise PeerError(f"{length:#x} bytes at {offset:#x} of region {index} are to be mapped, which has {size:#x}")
        whole = length - length % mmap.PAGESIZE
        if whole and not (offset % mmap.PAGESIZE or (at + offset) % mmap.PAGESIZE):
            areas.append(Area(offset=offset, size=whole, at=at + offset))
    return tuple(areas)


def without(areas: Iterable[Area], offset: int, size: int) -> tuple[Area, ...]:
    """What is left of *areas* when the pages of *size* bytes at *offset* are none of theirs."""
    first, end = offset - offset % mmap.PAGESIZE, offset + size + -(offset + size) % mmap.PAGESIZE
    left = []
    for area in areas:
        for low, high in (
            (area.offset, min(area.offset + area.size, first)),
            (max(area.offset, end), area.offset + area.size),
        ):
            if low < high:
                left.append(Area(offset=low, size=high - low, at=area.at + low - area.offset))
    return tuple(left)


def _walk(answer: bytes, first: int) -> Iterator[tuple[int, int]]:
    """Id and place of each capability."""
    seen: set[int] = set()
    at = first
    while at:
        if at in seen or not wire.REGION_INFO.size <= at <= len(answer) - CAPABILITY.size:
            raise PeerError(f"the capabilities of a region lead to {at:#x} of {len(answer):#x} bytes")
        seen.add(at)
        id_, _, following = CAPABILITY.unpack_from(answer, at)
        yield id_, at
        at = following


def _sparse(answer: bytes, at: int) -> list[tuple[int, int]]:
    """Offset and size of each area that the capability at *at* has."""
    begin = at + CAPABILITY.size + COUNT.size
    count = COUNT.unpack_from(answer, at + CAPABILITY.size)[0] if begin <= len(answer) else MOST + 1
    if count > MOST or begin + count * AREA.size > len(answer):
        raise PeerError(f"a region has {count} areas to be mapped in a description of {len(answer):#x} bytes")
    return [AREA.unpack_from(answer, begin + n * AREA.size) for n in range(count)]
