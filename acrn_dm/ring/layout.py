"""Layout of a split virtqueue (virtio 1.4, 2.7): sizes, alignments, and the address of every field.

Nobody else computes these. The C units have the same offsets in ``native/_layout.pxd``, because they need them inlined.
"""

import struct
from typing import Protocol

import attrs

from acrn_dm.base.records import frozen
from acrn_dm.ring.position import RingPosition

MAX_QUEUE_SIZE = 32768  # 2.7
LEGACY_PAGE = 4096  # 4.1.5.1.3.1: Queue Align and the unit of the legacy queue address

DESC = struct.Struct("<QIHH")  # 2.7.5: addr, len, flags, next
USED_ELEMENT = struct.Struct("<II")  # 2.7.8: id, len
U16 = struct.Struct("<H")
HEADER_BYTES = 4  # of available and used ring: flags, idx
EVENT_BYTES = 2  # used_event and avail_event, 2.7.10

DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1


class RingMemory(Protocol):
    """Guest RAM, as far as rings need it; both raise GuestError outside RAM."""

    def read(self, gpa: int, length: int, /) -> bytes:
        """Copy *length* bytes at *gpa*."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Copy *data* to *gpa*."""


@frozen(kw_only=True)
class RingPart:
    """One of the areas that a driver places on its own: where it is, how long, and how it has to be aligned (2.7)."""

    name: str
    gpa: int = attrs.field(repr=hex)
    length: int = attrs.field(repr=hex)
    alignment: int


@frozen(kw_only=True)
class RingLayout:
    """Size of a queue and the guest addresses of its three parts."""

    size: int
    desc: int = attrs.field(repr=hex)
    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)

    @classmethod
    def at(cls, gpa: int, size: int, align: int = 4) -> "RingLayout":
        """Lay the parts out one after the other from *gpa* on; *align* 4096 gives the legacy layout of 2.7.2."""
        avail = gpa + DESC.size * size
        return cls(size=size, desc=gpa, avail=avail, used=align_up(avail + avail_bytes(size), align))

    @classmethod
    def least_aligned(cls, gpa: int, size: int, gap: int = 0) -> "RingLayout":
        """Each part from *gpa* on at an address that is a multiple of what 2.7 asks of it and of no more, *gap* bytes
        between them.
        """
        desc = align_up(gpa, 32) + 16
        avail = desc + DESC.size * size + gap + 2
        used = align_up(avail + avail_bytes(size) + gap, 8) + 4
        return cls(size=size, desc=desc, avail=avail, used=used)

    @property
    def end(self) -> int:
        """First address after the used ring."""
        return self.used + used_bytes(self.size)

    def parts(self, *, event_idx: bool = True) -> tuple[RingPart, RingPart, RingPart]:
        """Descriptor table, available ring, used ring; without *event_idx* nothing behind the last two."""
        unused = 0 if event_idx else EVENT_BYTES
        return (
            RingPart(name="descriptor table", gpa=self.desc, length=DESC.size * self.size, alignment=16),
            RingPart(name="available ring", gpa=self.avail, length=avail_bytes(self.size) - unused, alignment=2),
            RingPart(name="used ring", gpa=self.used, length=used_bytes(self.size) - unused, alignment=4),
        )

    # Fields. Indices run on modulo 2^16; the entry is the remainder by the size.

    def desc_at(self, index: int) -> int:
        """Entry *index* of the descriptor table."""
        return self.desc + DESC.size * index

    @property
    def avail_flags_at(self) -> int:
        """avail.flags."""
        return self.avail

    @property
    def avail_idx_at(self) -> int:
        """avail.idx."""
        return self.avail + 2

    def avail_entry_at(self, index: int) -> int:
        """The available ring's entry for *index*."""
        return self.avail + HEADER_BYTES + U16.size * (index % self.size)

    @property
    def used_event_at(self) -> int:
        """used_event, behind the available ring."""
        return self.avail + HEADER_BYTES + U16.size * self.size

    @property
    def used_flags_at(self) -> int:
        """used.flags."""
        return self.used

    @property
    def used_idx_at(self) -> int:
        """used.idx."""
        return self.used + 2

    def used_element_at(self, index: int) -> int:
        """The used ring's entry for *index*."""
        return self.used + HEADER_BYTES + USED_ELEMENT.size * (index % self.size)

    @property
    def avail_event_at(self) -> int:
        """avail_event, behind the used ring."""
        return self.used + HEADER_BYTES + USED_ELEMENT.size * self.size


def avail_bytes(size: int) -> int:
    """Length of an available ring, used_event included."""
    return HEADER_BYTES + U16.size * size + EVENT_BYTES


def used_bytes(size: int) -> int:
    """Length of a used ring, avail_event included."""
    return HEADER_BYTES + USED_ELEMENT.size * size + EVENT_BYTES


def align_up(address: int, alignment: int) -> int:
    """The next multiple of *alignment*."""
    return -(-address // alignment) * alignment


def is_queue_size(value: int) -> bool:
    """Whether a queue can have so many entries: a power of two up to 32768 (2.7)."""
    return 0 < value <= MAX_QUEUE_SIZE and value & (value - 1) == 0


def legacy_ring_addresses(pfn: int, size: int) -> tuple[int, int, int]:
    """Guest addresses of descriptor table, available ring and used ring of a legacy queue (2.7.2).

    One contiguous area at *pfn* pages of 4096 bytes; between available ring (with used_event) and used ring it is
    padded to the next page.
    """
    layout = RingLayout.at(pfn * LEGACY_PAGE, size, LEGACY_PAGE)
    return layout.desc, layout.avail, layout.used


def used_idx(memory: RingMemory, layout: RingLayout) -> int:
    """How many chains were returned so far, modulo 2^16."""
    return int(U16.unpack(memory.read(layout.used_idx_at, U16.size))[0])


def used_position(memory: RingMemory, layout: RingLayout) -> RingPosition:
    """Where a ring is to be gone on with when nobody knows more: behind the last chain that was returned."""
    return RingPosition(used_idx(memory, layout))


def idle(memory: RingMemory, layout: RingLayout) -> bool:
    """Whether every chain that was made available has been returned."""
    return int(U16.unpack(memory.read(layout.avail_idx_at, U16.size))[0]) == used_idx(memory, layout)
