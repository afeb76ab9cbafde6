"""A client's memory as its memory table describes it: guest addresses for rings and buffers, user addresses for rings.

An offset into a region's file need not be aligned to pages. The file must be long enough when the region comes. A
client that shortens it later, and whose device then touches what has gone, finds zeros there and is to be left
(``shortened``).
"""

import os
from collections.abc import Sequence

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.payload import MAX_SLOTS
from acrn_dm.base.records import frozen
from acrn_dm.export.vhost_user.foreign import Foreign, map_file
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRegion

LIMIT = 1 << 64


@frozen(kw_only=True, eq=False)
class ClientRegion:
    """One region, whose file *foreign* is. *user* is what the client calls its first byte."""

    user: int = attrs.field(repr=hex)
    backing: MemoryRegion
    foreign: Foreign = attrs.field(repr=False)

    @property
    def key(self) -> tuple[int, int, int]:
        """What REM_MEM_REG names."""
        return self.backing.gpa, self.backing.size, self.user

    def overlaps(self, other: "ClientRegion") -> bool:
        """Whether a guest address is in both."""
        a, b = self.backing, other.backing
        return a.gpa < b.gpa + b.size and b.gpa < a.gpa + a.size

    def close(self) -> None:
        """Unmap and close."""
        self.foreign.close()


def map_region(fields: Sequence[int], fd: int, shortened: int, *, dumped: bool = False) -> ClientRegion:
    """Map a region of *fields* (``wire.payload.Region``); owns *fd* from now on. Raises PeerError.

    The eventfd *shortened* tells when its file was. Core dumps of this process have it only if *dumped*.
    """
    gpa, size, user, offset = fields
    if not size or gpa + size > LIMIT or user + size > LIMIT:
        os.close(fd)
        raise PeerError(f"a memory region of {size:#x} bytes at {gpa:#x}")
    what = f"a memory region of {size:#x} bytes at offset {offset:#x}"
    foreign = map_file(fd, offset, size, shortened, what=what, dumped=dumped)
    backing = MemoryRegion(gpa=gpa, size=size, fd=fd, mapping=foreign.mapping)
    return ClientRegion(user=user, backing=backing, foreign=foreign)


class ClientMemory:
    """The regions of one connection. They change only while nothing runs. *dumped*: they are in core dumps.

    *shortened* is an eventfd that is signalled when the client has taken memory away that the device then touched.
    """

    def __init__(self, *, dumped: bool = False) -> None:
        self.shortened = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._dumped = dumped
        self._regions: list[ClientRegion] = []
        self._map = MemoryMap([])

    @property
    def guest_memory(self) -> GuestMemory:
        """What devices are given; valid until the next change."""
        return GuestMemory(tuple(region.backing for region in self._regions), self._map, keeper="the front-end")

    @property
    def end(self) -> int:
        """The address behind the highest one."""
        return max((region.backing.gpa + region.backing.size for region in self._regions), default=0)

    def replace(self, regions: Sequence[Sequence[int]], fds: list[int]) -> None:
        """SET_MEM_TABLE; takes all *fds* that it uses out of the list. Raises PeerError, and then has no regions."""
        self.clear()
        if len(regions) != len(fds):
            raise PeerError(f"{len(regions)} memory regions with {len(fds)} descriptors")
        try:
            for fields in regions:
                self._append(map_region(fields, fds.pop(0), self.shortened, dumped=self._dumped))
        except PeerError:
            self.clear()
            raise
        self._rebuild()

    def add(self, fields: Sequence[int], fd: int) -> None:
        """ADD_MEM_REG; owns *fd*. A region that is there already is accepted: QEMU 7.2 repeats them. Raises PeerError,
        and then nothing has changed.
        """
        region = map_region(fields, fd, self.shortened, dumped=self._dumped)
        if any(region.key == known.key for known in self._regions):
            region.close()
            return
        self._append(region)
        self._rebuild()

    def remove(self, fields: Sequence[int]) -> None:
        """REM_MEM_REG. Raises PeerError for a region that is not there."""
        gone = [region for region in self._regions if region.key == tuple(fields[:3])]
        if not gone:
            raise PeerError(f"there is no memory region of {fields[1]:#x} bytes at {fields[0]:#x}")
        self._regions.remove(gone[0])
        self._rebuild()
        gone[0].close()

    def clear(self) -> None:
        """Forget everything."""
        regions, self._regions = self._regions, []
        self._rebuild()
        for region in regions:
            region.close()

    def close(self) -> None:
        """Forget everything for good."""
        self.clear()
        os.close(self.shortened)

    def guest_address(self, user: int) -> int:
        """The guest address of a user address. Raises PeerError outside all regions."""
        for region in self._regions:
            if region.user <= user < region.user + region.backing.size:
                return region.backing.gpa + user - region.user
        raise PeerError(f"a ring at {user:#x}, where no memory is")

    def _append(self, region: ClientRegion) -> None:
        """Take *region*, which is closed if it can't be had. Raises PeerError."""
        why = None
        if len(self._regions) == MAX_SLOTS:
            why = f"more than {MAX_SLOTS} memory regions"
        elif any(region.overlaps(known) for known in self._regions):
            why = f"a memory region of {region.backing.size:#x} bytes at {region.backing.gpa:#x} overlaps another"
        if why is not None:
            region.close()
            raise PeerError(why)
        self._regions.append(region)

    def _rebuild(self) -> None:
        self._map.close()
        parts = []
        for region in self._regions:
            first = region.foreign.first
            view = memoryview(region.backing.mapping)
            parts.append((region.backing.gpa, view[first : first + region.backing.size]))
        self._map = MemoryMap(parts)
