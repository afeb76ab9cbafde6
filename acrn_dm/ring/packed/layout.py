"""Layout of a packed virtqueue (virtio 1.4, 2.8): the descriptor ring and the two event suppression structures.

A ``RingLayout`` has a packed ring's three areas under the names of the registers that say where they are: ``desc`` is
the descriptor ring, ``avail`` the driver's event suppression structure (driver area), ``used`` the device's.
"""

import struct

from acrn_dm.ring.layout import RingLayout, RingPart, align_up

PACKED_DESC = struct.Struct("<QIHH")  # 2.8.13: addr, len, id, flags
PACKED_EVENT = struct.Struct("<HH")  # 2.8.14: off and wrap, flags
LEN_AT, ID_AT, FLAGS_AT = 8, 12, 14  # within a descriptor
EVENT_FLAGS_AT = 2  # within an event suppression structure

DESC_F_AVAIL = 1 << 7  # 2.8.1
DESC_F_USED = 1 << 15
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2  # 2.8.10; 3 is reserved
EVENT_FLAGS = 3  # the other 14 bits are reserved and 0
WRAP = 1 << 15  # the wrap counter, above 15 bits of offset


def packed_layout(gpa: int, size: int, align: int = 4, gap: int = 0) -> RingLayout:
    """One area after the other from *gpa* on, the event structures at multiples of *align*, *gap* bytes between."""
    desc = align_up(gpa, 16)
    driver = align_up(desc + PACKED_DESC.size * size + gap, align)
    return RingLayout(size=size, desc=desc, avail=driver, used=align_up(driver + PACKED_EVENT.size + gap, align))


def packed_parts(layout: RingLayout) -> tuple[RingPart, RingPart, RingPart]:
    """What has to be where (2.8.10.1)."""
    event, size = PACKED_EVENT.size, PACKED_DESC.size * layout.size
    return (
        RingPart(name="descriptor ring", gpa=layout.desc, length=size, alignment=16),
        RingPart(name="driver event suppression", gpa=layout.avail, length=event, alignment=4),
        RingPart(name="device event suppression", gpa=layout.used, length=event, alignment=4),
    )


def wraps(count: int, size: int) -> int:
    """The wrap counter of whoever has gone by *count* descriptors of a ring of *size*: 1 at first (2.8.1)."""
    return 1 ^ (count // size & 1)


def off_wrap(count: int, size: int) -> int:
    """The descriptor behind the first *count* ones as an event structure names it: slot, wrap counter in bit 15."""
    return count % size | wraps(count, size) << 15
