"""PCI's windows in the guest's address spaces, as the allocator of BARs wants them."""

import attrs

from acrn_dm.base.address_map import (
    ECAM_BASE,
    ECAM_BUS_SIZE,
    PCI_CONFIG_ADDRESS,
    PCI_IO_BASE,
    PCI_IO_END,
    PCI_MMIO32_BASE,
    PCI_MMIO32_END,
    PCI_MMIO64_BASE,
    PCI_MMIO64_END,
)
from acrn_dm.base.records import frozen

__all__ = [
    "CONFIG_ADDRESS",
    "CONFIG_DATA",
    "ECAM_BASE",
    "ECAM_BUS_SIZE",
    "IO_WINDOW",
    "MEM32_WINDOW",
    "MEM64_BELOW_4G",
    "MEM64_WINDOW",
    "Window",
]


@frozen(kw_only=True)
class Window:
    """A stretch of an address space that BARs are placed in."""

    name: str
    base: int = attrs.field(repr=hex)
    end: int = attrs.field(repr=hex)  # first address behind it

    @property
    def size(self) -> int:
        """Bytes (or ports)."""
        return self.end - self.base


IO_WINDOW = Window(name="I/O", base=PCI_IO_BASE, end=PCI_IO_END)
MEM32_WINDOW = Window(name="32-bit memory", base=PCI_MMIO32_BASE, end=PCI_MMIO32_END)
MEM64_WINDOW = Window(name="64-bit memory", base=PCI_MMIO64_BASE, end=PCI_MMIO64_END)
MEM64_BELOW_4G = 32 << 20  # a 64-bit BAR up to this size is placed in the 32-bit window

CONFIG_ADDRESS = PCI_CONFIG_ADDRESS
CONFIG_DATA = CONFIG_ADDRESS + 4
