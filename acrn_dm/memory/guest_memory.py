"""Guest memory: one memfd per region, mapped once and shared, so that vhost-user peers can map it too.

``GuestMemory`` owns files and mappings; ``GuestMemory.map`` is the ring module's view of them, which holds a buffer
export of each mapping, so that closing too early raises BufferError instead of leaving a dangling pointer.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Sequence

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import HostError
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.memory.hugepages import HugePages

MIB = 1 << 20
LOWMEM_LIMIT = 0x8000_0000  # the 32-bit PCI window starts here; ABI of the original
HIGHMEM_BASE = 0x1_0000_0000
FALLOC_PUNCH_AND_KEEP = 0x02 | 0x01  # linux/falloc.h
MFD_HUGE_SHIFT = 26  # linux/memfd.h: log2 of the page size
SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL  # nobody who gets the file can shrink it under us


@attrs.frozen(kw_only=True)
class MemoryRange:
    """A stretch of guest RAM, without its backing."""

    gpa: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)


def guest_ranges(size_bytes: int) -> tuple[MemoryRange, ...]:
    """Lay *size_bytes* of RAM out: below 2 GiB, the rest from 4 GiB on."""
    low = MemoryRange(gpa=0, size=min(size_bytes, LOWMEM_LIMIT))
    if size_bytes <= LOWMEM_LIMIT:
        return (low,)
    return (low, MemoryRange(gpa=HIGHMEM_BASE, size=size_bytes - LOWMEM_LIMIT))


@attrs.frozen(kw_only=True, eq=False)
class MemoryRegion:
    """A range with its backing: the memfd (offset 0 is the range's first byte) and our mapping of it."""

    gpa: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    fd: int
    mapping: mmap.mmap = attrs.field(repr=False)

    @property
    def hva(self) -> int:
        """Address of the mapping in this process, for the hypervisor's memory ioctl."""
        anchor = ctypes.c_char.from_buffer(self.mapping)
        try:
            return ctypes.addressof(anchor)
        finally:
            del anchor

    def discard(self) -> None:
        """Punch the whole file out. Raises HostError."""
        libc = ctypes.CDLL(None, use_errno=True)
        args = (self.fd, FALLOC_PUNCH_AND_KEEP, ctypes.c_int64(0), ctypes.c_int64(self.size))
        if libc.fallocate(*args) != 0:
            raise HostError("clearing guest memory", err=ctypes.get_errno())

    def overwrite(self) -> None:
        """Fill what the file has pages for with zeros, without the GIL; holes stay holes."""
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self.fd, at, os.SEEK_DATA)
                end = os.lseek(self.fd, start, os.SEEK_HOLE)
            except OSError as e:
                if e.errno == errno.ENXIO:  # no data from here on
                    return
                start, end = at, self.size
            ctypes.memset(self.hva + start, 0, end - start)
            at = end


@attrs.frozen(kw_only=True)
class _Backing:
    """A region's backing before it is made; *page* 0 is the host's ordinary pages. *dumped*: in core dumps, too."""

    gpa: int
    size: int
    page: int = 0
    dumped: bool = False

    def map(self, name: str) -> MemoryRegion:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        if self.page:
            flags |= os.MFD_HUGETLB | (self.page.bit_length() - 1) << MFD_HUGE_SHIFT
        fd = os.memfd_create(name, flags)
        try:
            os.ftruncate(fd, self.size)
            mapping = mmap.mmap(fd, self.size, mmap.MAP_SHARED)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            if not self.dumped:
                leave_out(mapping)
            if not self.page:
                _prefer_huge_pages(mapping)
        except OSError:
            os.close(fd)
            raise
        return MemoryRegion(gpa=self.gpa, size=self.size, fd=fd, mapping=mapping)


@attrs.define(eq=False)
class GuestMemory:
    """All RAM of one guest. ``read``/``write`` raise GuestError outside RAM and may cross regions that touch."""

    regions: tuple[MemoryRegion, ...]
    map: MemoryMap = attrs.field(repr=False)
    _hugetlb: HugePages | None = attrs.field(default=None, init=False, repr=False)

    @classmethod
    def allocate(
        cls, ranges: Sequence[MemoryRange], hugetlb: HugePages | None = None, *, dumped: bool = False
    ) -> "GuestMemory":
        """Create the memfds and map them. Raises HostError.

        Pages appear as the guest touches them; those of *hugetlb* are set aside at once. A range may become two regions
        then, of pages of two sizes. Core dumps of this process have it only if *dumped*.
        """
        if hugetlb is None:
            return cls._map([_Backing(gpa=r.gpa, size=r.size, dumped=dumped) for r in ranges])
        with hugetlb.reserved([(r.gpa, r.size) for r in ranges]) as pieces:
            memory = cls._map([_Backing(gpa=p.gpa, size=p.size, page=p.page, dumped=dumped) for p in pieces])
        memory._hugetlb = hugetlb
        return memory

    @classmethod
    def _map(cls, backings: "Sequence[_Backing]") -> "GuestMemory":
        regions: list[MemoryRegion] = []
        try:
            for i, backing in enumerate(backings):
                regions.append(backing.map(f"guest-ram-{i}"))
            return cls(tuple(regions), MemoryMap([(r.gpa, r.mapping) for r in regions]))
        except OSError as e:
            for region in regions:
                region.mapping.close()
                os.close(region.fd)
            total = sum(b.size for b in backings) // MIB
            raise HostError.from_os(f"allocating {total} MiB of guest memory", e) from e

    def read(self, gpa: int, length: int) -> bytes:
        """Copy *length* bytes out of RAM at *gpa*. Raises GuestError outside RAM."""
        return self.map.read(gpa, length)

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Copy *data* into RAM at *gpa*. Raises GuestError outside RAM."""
        self.map.write(gpa, data)

    def clear(self, *, in_place: bool = False) -> None:
        """RAM reads as zero again, as after power-on.

        Every page is given back to the host, unless somebody has pinned it: *in_place*, those that were ever used are
        overwritten.
        """
        for region in self.regions:
            if in_place:
                region.overwrite()
            else:
                region.discard()

    def abandon(self) -> None:
        """Instead of ``close``: the host's kernel is still at work on the memory, which stays mapped until the process
        ends.
        """
        if self._hugetlb is not None:
            self._hugetlb.give_back()

    def close(self) -> None:
        """Release views, mappings and files, in this order. Raises BufferError while a ring still uses the memory."""
        self.map.close()
        for region in self.regions:
            region.mapping.close()
            os.close(region.fd)
        self.regions = ()
        if self._hugetlb is not None:
            self._hugetlb.give_back()


def _prefer_huge_pages(mapping: mmap.mmap) -> None:
    """Ask for 2 MiB pages: a guest then faults its memory in 512 times less often, and its TLB reaches further.

    Takes effect where /sys/kernel/mm/transparent_hugepage/shmem_enabled says "advise"; elsewhere the kernel ignores it.
    """
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages
        mapping.madvise(mmap.MADV_HUGEPAGE)
