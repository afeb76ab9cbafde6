"""Memory that devices bring: files in the guest's address space, beside its RAM and below the PCI windows, and windows,
which stand where a device's registers are.

No firmware table tells of it; the device that brings it tells its driver where it is.
"""

import mmap
import os

from acrn_dm.base import address_map as layout
from acrn_dm.base.errors import HostError
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.contract.hypervisor import Hypervisor, ReplacesMemory
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRegion

UNIT = 2 << 20  # guests map what is large in pages of this size


def add_memory(vm: Hypervisor, memory: GuestMemory, fd: int, size: int, *, dumped: bool = False) -> int:
    """Put *size* bytes of the file *fd* into the guest, as ``Resources.add_memory``. *dumped*: core dumps have them."""
    if vm.pins_memory:
        raise HostError("memory can't be added: the hypervisor keeps the guest's pages")
    if size <= 0 or size % UNIT:
        raise HostError(f"memory can't be added: {size:#x} bytes are no multiple of {UNIT:#x}")
    region = _map(_place(memory, size), fd, size)
    try:
        memory.add(region)
    except HostError:
        region.mapping.close()
        os.close(region.fd)
        raise
    if not dumped:
        leave_out(region.mapping)
    vm.map_memory(region)
    return region.gpa


def set_window(vm: Hypervisor, region: MemoryRegion, there: bool) -> None:
    """Let the guest have *region* in the place of registers, or no more, as ``Resources.window``."""
    if not isinstance(vm, ReplacesMemory):
        raise HostError("the hypervisor takes no memory while the guest runs")
    if there:
        vm.map_memory(region)
    else:
        vm.unmap_memory(region)


def _place(memory: GuestMemory, size: int) -> int:
    """Below what was placed before: the highest place first, far from RAM, whose size is the user's."""
    end = min([layout.PCI_MMIO64_BASE, *(region.gpa for region in memory.regions if region.owned)])
    gpa = end - size & -UNIT
    ram_end = max([layout.HIGHMEM_BASE, *(r.gpa + r.size for r in memory.regions if not r.owned)])
    if gpa < ram_end:
        raise HostError(f"memory can't be added: {size:#x} bytes don't fit between RAM and the PCI windows")
    return gpa


def _map(gpa: int, fd: int, size: int) -> MemoryRegion:
    own = os.dup(fd)
    try:
        if os.fstat(own).st_size < size:
            raise HostError(f"memory can't be added: the file is shorter than {size:#x} bytes")
        mapping = mmap.mmap(own, size, mmap.MAP_SHARED)
    except OSError as e:
        os.close(own)
        raise HostError.from_os("mapping memory of a device", e) from e
    except HostError:
        os.close(own)
        raise
    return MemoryRegion(gpa=gpa, size=size, fd=own, mapping=mapping, owned=True)
