"""A PCI function that is right and no virtio device: the sibling of the wrong ones in ``wrong.functions``.

Registers of BAR 0, 32 bits each: 0x00 a word to keep, 0x04 a guest address, 0x08 a length, 0x0C 1 fills that much there
with 0x5A, 0x10 1 interrupts, 0x14 which of it is pending, cleared by writing 1, 0x18 which version it is, 0x1C the
high half of the address.
"""

import contextlib

from acrn_dm import BarKind, DeviceContext, GuestError, PciFunction, Resources
from acrn_dm.testing import GuestFunction
from acrn_dm.testing.conformance.outside.world import Operation

KEPT, ADDRESS, LENGTH, FILL, RAISE, PENDING, VERSION, ADDRESS_HIGH = range(0, 0x20, 4)
SIZE = 0x100
MAX_LENGTH = 4096
PATTERN = 0x5A


class RightFunction(PciFunction):
    """Has memory and I/O, MSI, a pin, and moves data by itself."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context, vendor=0x1234, device=0x11E8, class_code=0xFF0000, revision=1)
        self.add_bar(0, SIZE, BarKind.MEM32, self)
        self.add_bar(2, 16, BarKind.IO, self)
        self.lay_out()
        self.use_intx()
        self.clear()

    def lay_out(self) -> None:
        """Capabilities."""
        self.add_msi()

    def clear(self) -> None:
        """Registers as after power-on."""
        self.kept = self.address = self.length = self.pending = 0

    def realize(self, resources: Resources) -> None:
        self.resources = resources

    def read(self, offset: int, size: int) -> int:
        """The registers, in whole words; 0 elsewhere."""
        if size != 4 or offset % 4:
            return 0
        low, high = self.address & 0xFFFF_FFFF, self.address >> 32
        values = {
            KEPT: self.kept,
            ADDRESS: low,
            ADDRESS_HIGH: high,
            LENGTH: self.length,
            PENDING: self.pending,
            VERSION: 1,
        }
        return values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """The registers, in whole words."""
        if size != 4 or offset % 4:
            return
        if offset == KEPT:
            self.kept = value
        elif offset == ADDRESS:
            self.address = self.address & ~0xFFFF_FFFF | value
        elif offset == ADDRESS_HIGH:
            self.address = self.address & 0xFFFF_FFFF | value << 32
        elif offset == LENGTH:
            self.length = value
        elif offset == FILL and value == 1:
            self.fill()
        elif offset == RAISE and value == 1:
            self.pending |= 1
            self.interrupt()
        elif offset == PENDING:
            self.pending &= ~value
            self.acknowledged()

    def fill(self) -> None:
        """What the driver asked for, where it may."""
        if self.bus_master:
            with contextlib.suppress(GuestError):
                self.resources.memory.write(self.address, bytes([PATTERN]) * min(self.length, MAX_LENGTH))

    def interrupt(self) -> None:
        """By a message, or by the pin."""
        if self.msi is not None and self.msi.enabled:
            self.msi.raise_()
        elif self.intx is not None:
            self.intx.set(True)

    def acknowledged(self) -> None:
        """The pin follows."""
        if not self.pending and self.intx is not None:
            self.intx.set(False)

    def reset(self) -> None:
        self.clear()
        super().reset()


class RightMsix(RightFunction):
    """The same with MSI-X in place of MSI."""

    def lay_out(self) -> None:
        self.add_msix(4, 3)

    def interrupt(self) -> None:
        assert self.msix is not None
        if self.msix.enabled:
            self.msix.raise_vector(1)
        elif self.intx is not None:
            self.intx.set(True)


class Driver(Operation):
    """How a driver of it makes it work."""

    def interrupt(self, function: GuestFunction) -> None:
        """By the register for that."""
        function.bar_write(0, RAISE, 4, 1)

    def acknowledge(self, function: GuestFunction) -> None:
        """By writing 1."""
        function.bar_write(0, PENDING, 4, 1)

    def move(self, function: GuestFunction, gpa: int, length: int) -> None:
        """By three registers."""
        for register, value in ((ADDRESS, gpa & 0xFFFF_FFFF), (ADDRESS_HIGH, gpa >> 32), (LENGTH, length), (FILL, 1)):
            function.bar_write(0, register, 4, value)
