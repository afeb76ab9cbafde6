"""Interrupts of a PCI function as its guest sees them: the level of a line, messages by their data, registers."""

from collections.abc import Mapping

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import world
from acrn_dm.testing.conformance.outside.world import Operation
from acrn_dm.testing.conformance.table import NotApplicable
from acrn_dm.testing.guest_pci import CAP_MSI, CAP_MSIX, COMMAND, INTERRUPT_PIN, STATUS, GuestFunction

INTX_DISABLE, MASTER = 1 << 10, 1 << 2
INTERRUPT_STATUS = 1 << 3
MSI_ADDRESS = 0xFEE0_0000
ENABLE, WIDE, MASKABLE = 1, 1 << 7, 1 << 8  # of MSI's control register
DATA = 0x4A40  # of messages; the low bits are left to several vectors


@attrs.define(eq=False)
class Signals:
    """A function whose driver knows how to make it interrupt."""

    bench: Bench

    @property
    def function(self) -> GuestFunction:
        """The guest's view."""
        return self.bench.function

    def interrupt(self) -> None:
        """Make it interrupt. Raises NotApplicable where nobody said how."""
        world(self.bench, Operation).interrupt(self.function)
        self.bench.machine.settle()

    def acknowledge(self) -> None:
        """Serve the interrupt. Raises NotApplicable where nobody said how."""
        world(self.bench, Operation).acknowledge(self.function)
        self.bench.machine.settle()

    @property
    def line(self) -> bool:
        """The level of the line that its pin leads to. Raises NotApplicable without a pin."""
        pin = self.function.read(INTERRUPT_PIN, 1) - 1
        routes = {(slot, p): gsi for slot, p, gsi in self.bench.machine.bus.prt()}
        if pin < 0 or (self.function.slot, pin) not in routes:
            raise NotApplicable("the function has no interrupt pin")
        return self.bench.machine.vm.line(routes[self.function.slot, pin])

    @property
    def status(self) -> bool:
        """Interrupt Status."""
        return bool(self.function.read(STATUS, 2) & INTERRUPT_STATUS)

    def disable_pin(self, disabled: bool) -> None:
        """Interrupt Disable."""
        command = self.function.read(COMMAND, 2)
        self.function.write(COMMAND, 2, command | INTX_DISABLE if disabled else command & ~INTX_DISABLE)

    def messages(self) -> Mapping[int, int]:
        """Data of the messages since the last call, and how often each came."""
        machine = self.bench.machine
        machine.take_interrupts()
        found = dict(machine.interrupts)
        machine.interrupts.clear()
        return found


@attrs.define(eq=False)
class MsiRegisters:
    """MSI's capability as the guest finds it (6.8.1)."""

    function: GuestFunction
    at: int
    control: int

    @property
    def vectors(self) -> int:
        """Messages that the function is capable of."""
        return 1 << (self.control >> 1 & 7)

    @property
    def data_at(self) -> int:
        """Where the data are."""
        return self.at + (12 if self.control & WIDE else 8)

    @property
    def mask_at(self) -> int:
        """Where the mask bits are; the pending ones follow. Raises NotApplicable."""
        if not self.control & MASKABLE:
            raise NotApplicable("the function's MSI can't be masked")
        return self.at + (16 if self.control & WIDE else 12)

    def enable(self, data: int = DATA, *, several: int = 0) -> None:
        """Program it, and switch it on with 2 to the power of *several* messages."""
        write = self.function.write
        write(self.at + 2, 2, 0)
        write(self.at + 4, 4, MSI_ADDRESS)
        if self.control & WIDE:
            write(self.at + 8, 4, 0)
        write(self.data_at, 2, data)
        write(self.at + 2, 2, ENABLE | several << 4)


def msi(bench: Bench) -> MsiRegisters:
    """The function's MSI. Raises NotApplicable."""
    found = bench.function.capability(CAP_MSI)
    if found is None:
        raise NotApplicable("the function has no MSI")
    return MsiRegisters(bench.function, found.at, bench.function.read(found.at + 2, 2))


@attrs.frozen(kw_only=True)
class MsixPlace:
    """The place of MSI-X's table and pending bits, as the capability says (6.8.2)."""

    at: int
    vectors: int
    table: tuple[int, int]  # BAR, offset
    pending: tuple[int, int]


def msix(bench: Bench) -> MsixPlace:
    """The function's MSI-X. Raises NotApplicable."""
    found = bench.function.capability(CAP_MSIX)
    if found is None:
        raise NotApplicable("the function has no MSI-X")
    table, pending = (bench.function.read(found.at + offset, 4) for offset in (4, 8))
    return MsixPlace(
        at=found.at,
        vectors=bench.function.vectors,
        table=(table & 7, table & ~7),
        pending=(pending & 7, pending & ~7),
    )
