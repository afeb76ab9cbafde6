"""Guest memory: one memfd per region, mapped once and shared, so that vhost-user peers can map it too.

``GuestMemory`` owns files and mappings; ``GuestMemory.map`` is the ring module's view of them, which holds a buffer
export of each mapping, so that closing too early raises BufferError instead of leaving a dangling pointer.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.errors import HostError

MIB = 1 << 20
LOWMEM_LIMIT = 0x8000_0000  # the 32-bit PCI window starts here; ABI of the original
HIGHMEM_BASE = 0x1_0000_0000
FALLOC_PUNCH_AND_KEEP = 0x02 | 0x01  # linux/falloc.h


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


@attrs.define(eq=False)
class GuestMemory:
    """All RAM of one guest. ``read``/``write`` raise GuestError outside RAM and may cross regions that touch."""

    regions: tuple[MemoryRegion, ...]
    map: MemoryMap = attrs.field(repr=False)

    @classmethod
    def allocate(cls, ranges: Sequence[MemoryRange]) -> "GuestMemory":
        """Create the memfds and map them; pages appear as the guest touches them. Raises HostError."""
        regions: list[MemoryRegion] = []
        try:
            for i, r in enumerate(ranges):
                fd = os.memfd_create(f"guest-ram-{i}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                try:
                    os.ftruncate(fd, r.size)
                    mapping = mmap.mmap(fd, r.size, mmap.MAP_SHARED)
                    _prefer_huge_pages(mapping)
                except OSError:
                    os.close(fd)
                    raise
                regions.append(MemoryRegion(gpa=r.gpa, size=r.size, fd=fd, mapping=mapping))
            return cls(tuple(regions), MemoryMap([(r.gpa, r.mapping) for r in regions]))
        except OSError as e:
            for region in regions:
                region.mapping.close()
                os.close(region.fd)
            total = sum(r.size for r in ranges) // MIB
            raise HostError.from_os(f"allocating {total} MiB of guest memory", e) from e

    def read(self, gpa: int, length: int) -> bytes:
        """Copy *length* bytes out of RAM at *gpa*. Raises GuestError outside RAM."""
        return self.map.read(gpa, length)

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Copy *data* into RAM at *gpa*. Raises GuestError outside RAM."""
        self.map.write(gpa, data)

    def clear(self) -> None:
        """Give every page back to the host: RAM reads as zero again, as after power-on."""
        libc = ctypes.CDLL(None, use_errno=True)
        for region in self.regions:
            args = (region.fd, FALLOC_PUNCH_AND_KEEP, ctypes.c_int64(0), ctypes.c_int64(region.size))
            if libc.fallocate(*args) != 0:
                raise HostError("clearing guest memory", err=ctypes.get_errno())

    def close(self) -> None:
        """Release views, mappings and files, in this order. Raises BufferError while a ring still uses the memory."""
        self.map.close()
        for region in self.regions:
            region.mapping.close()
            os.close(region.fd)
        self.regions = ()


def _prefer_huge_pages(mapping: mmap.mmap) -> None:
    """Ask for 2 MiB pages: a guest then faults its memory in 512 times less often, and its TLB reaches further.

    Takes effect where /sys/kernel/mm/transparent_hugepage/shmem_enabled says "advise"; elsewhere the kernel ignores it.
    """
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages
        mapping.madvise(mmap.MADV_HUGEPAGE)
