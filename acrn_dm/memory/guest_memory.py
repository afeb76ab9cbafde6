"""Guest memory: one memfd per region, mapped once and shared, so that vhost-user peers can map it too.

``GuestMemory`` owns files and mappings; ``GuestMemory.map`` is the ring module's view of them, which holds a buffer
export of each mapping, so that closing too early raises BufferError instead of leaving a dangling pointer.
"""

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Sequence

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.base._libc import address_of, clear, fallocate
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.base.records import define, frozen
from acrn_dm.memory.generations import Generations
from acrn_dm.memory.hugepages import HugePages

MIB = 1 << 20
LOWMEM_LIMIT = 0x8000_0000  # the 32-bit PCI window starts here; ABI of the original
HIGHMEM_BASE = 0x1_0000_0000
FALLOC_PUNCH_AND_KEEP = 0x02 | 0x01  # linux/falloc.h
MFD_HUGE_SHIFT = 26  # linux/memfd.h: log2 of the page size
SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL  # nobody who gets the file can shrink it under us


@frozen(kw_only=True)
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


@frozen(kw_only=True, eq=False)
class MemoryRegion:
    """A range with its backing: the memfd (at *offset* is the range's first byte) and our mapping of it."""

    gpa: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    fd: int
    mapping: mmap.mmap = attrs.field(repr=False)
    owned: bool = False  # a device's: no RAM, and its content is the device's to keep
    offset: int = attrs.field(default=0, repr=hex)
    watched: bool = False  # where the file has ended there are zeros, by ``base.process._shortened``

    @property
    def cut(self) -> bool:
        """Whether somebody has made the file shorter than the range."""
        return os.fstat(self.fd).st_size < self.offset + self.size

    @property
    def hva(self) -> int:
        """Address of the mapping in this process, for the hypervisor's memory ioctl."""
        return address_of(self.mapping)

    def discard(self, offset: int = 0, length: int | None = None) -> None:
        """Punch *length* bytes of the file out from *offset* on, by default all of it. Raises HostError."""
        end = self.size if length is None else offset + length
        try:
            fallocate(self.fd, FALLOC_PUNCH_AND_KEEP, offset, end - offset)
        except OSError as e:
            raise HostError("clearing guest memory", err=e.errno) from None

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
            clear(self.mapping, start, end)
            at = end


@frozen(kw_only=True)
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


@define(eq=False)
class GuestMemory:
    """All RAM of one guest. ``read``/``write`` raise GuestError outside RAM and may cross regions that touch."""

    regions: tuple[MemoryRegion, ...]
    _map: MemoryMap = attrs.field(repr=False)
    keeper: str | None = attrs.field(default=None, kw_only=True)  # who keeps pages of it, so that none may go
    generations: Generations = attrs.field(factory=Generations, kw_only=True, repr=False)
    # Who has to hear of what rings have devices write, before their drivers do; (gpa, length) of each part.
    tell_writes: Callable[[Sequence[tuple[int, int]]], None] | None = attrs.field(
        default=None, kw_only=True, repr=False
    )
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
            return cls._make([_Backing(gpa=r.gpa, size=r.size, dumped=dumped) for r in ranges])
        with hugetlb.reserved([(r.gpa, r.size) for r in ranges]) as pieces:
            memory = cls._make([_Backing(gpa=p.gpa, size=p.size, page=p.page, dumped=dumped) for p in pieces])
        memory._hugetlb = hugetlb
        return memory

    @classmethod
    def _make(cls, backings: "Sequence[_Backing]") -> "GuestMemory":
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

    @property
    def map(self) -> MemoryMap:
        """What rings walk, of this generation: whoever keeps it is told of the next one (``generations``)."""
        return self._map

    def read(self, gpa: int, length: int) -> bytes:
        """Copy *length* bytes out of RAM at *gpa*. Raises GuestError outside RAM."""
        return self.map.read(gpa, length)

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Copy *data* into RAM at *gpa*. Raises GuestError outside RAM."""
        self.map.write(gpa, data)

    @property
    def kept_because(self) -> str | None:
        """Why ``discard`` gives nothing back; None when it does.

        A page that somebody keeps would be another one than the guest's from then on: the hypervisor's (ACRN maps pages
        for good), a front-end's memory. Huge pages that were set aside may be another's when the guest wants them back.
        """
        if self.keeper is not None:
            return f"{self.keeper} keeps the guest's pages"
        return "huge pages are set aside for the guest" if self._hugetlb is not None else None

    def discard(self, gpa: int, length: int) -> int:
        """Give the host's pages that lie wholly in [gpa, gpa + length) back; they read as zero until the guest, or a
        device, writes to them, and then there is memory again. Any thread.

        Returns how many bytes that was: 0 where ``kept_because`` says why. Every process that shares the memory sees
        it, the hypervisor's vCPUs, vhost and vhost-user, too. Raises GuestError outside RAM, before anything is given
        back, and HostError.
        """
        pieces = self._pieces(gpa, length)
        if self.kept_because is not None:
            return 0
        given = 0
        for region, start, end in pieces:
            if region.owned:
                continue
            first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                region.discard(first - region.gpa, last - first)
                given += last - first
        return given

    def _pieces(self, gpa: int, length: int) -> list[tuple[MemoryRegion, int, int]]:
        """The parts of [gpa, gpa + length) in each region. Raises GuestError where they are not all of it."""
        if gpa < 0 or length < 0:
            raise GuestError(f"{length:#x} bytes at {gpa:#x} are no RAM")
        parts = [(r, max(gpa, r.gpa), min(gpa + length, r.gpa + r.size)) for r in self.regions]
        pieces = [part for part in parts if part[1] < part[2]]
        if sum(end - start for _, start, end in pieces) != length:
            raise GuestError(f"{length:#x} bytes at {gpa:#x} are not all RAM")
        return pieces

    def clear(self, *, in_place: bool = False) -> None:
        """RAM reads as zero again, as after power-on; what devices own is theirs to clear.

        Every page is given back to the host, unless somebody has pinned it: *in_place*, those that were ever used are
        overwritten.
        """
        for region in self.regions:
            if region.owned:
                continue
            if in_place:
                region.overwrite()
            else:
                region.discard()

    def add(self, region: MemoryRegion) -> None:
        """Have *region* as well, and close it with the others. Raises HostError."""
        regions = (*self.regions, region)
        try:
            map_ = MemoryMap([(r.gpa, r.mapping) for r in regions])
        except ValueError as e:
            raise HostError(f"adding memory: {e}") from e
        with self.generations.change():
            before, self._map, self.regions = self._map, map_, regions
            self.generations.release(before.close)

    def hand_over_pools(self) -> dict[int, int]:
        """What the host's pools of huge pages were grown by, pages by their size: who is told it gives it back when
        the memory is nobody's any more.
        """
        return {} if self._hugetlb is None else self._hugetlb.hand_over()

    def abandon(self) -> None:
        """Instead of ``close``: the host's kernel is still at work on the memory, which stays mapped until the process
        ends.
        """
        if self._hugetlb is not None:
            self._hugetlb.give_back()

    def close(self) -> None:
        """Release views, mappings and files, in this order. Raises BufferError while a ring still uses the memory."""
        self._map.close()
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
