"""Addresses that are ABI, and their agreement with each other."""

from acrn_dm.base import address_map as layout
from acrn_dm.memory import guest_memory as memory


def test_layout_and_memory_agree_where_ram_ends() -> None:
    assert (layout.LOWMEM_LIMIT, layout.HIGHMEM_BASE) == (memory.LOWMEM_LIMIT, memory.HIGHMEM_BASE)


def test_pci_windows_are_the_originals() -> None:
    assert (layout.PCI_MMIO32_BASE, layout.PCI_MMIO32_END) == (0x8000_0000, 0xE000_0000)
    assert (layout.PCI_MMIO64_BASE, layout.PCI_MMIO64_END) == (0x40_0000_0000, 0x80_0000_0000)
    assert (layout.PCI_IO_BASE, layout.PCI_IO_END, layout.ECAM_BASE) == (0x2000, 0x10000, 0xE000_0000)


def test_all_buses_of_the_ecam_fit_below_passthrough_mmio() -> None:
    assert layout.ECAM_BASE + layout.ECAM_MAX_BUSES * layout.ECAM_BUS_SIZE <= 0xF000_0000
