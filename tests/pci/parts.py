"""What the PCI tests build with: a recording interrupt sink, resources without a hypervisor, and small functions."""

from typing import Any

from acrn_dm.base.bus import Bus, mmio_bus, pio_bus
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import InterruptSink, MsiMessage
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.pci.bus import PciBus
from acrn_dm.pci.function import PciFunction

COMMAND = 0x04


class Interrupts:
    """Keeps what would have reached the guest."""

    def __init__(self) -> None:
        self.messages: list[MsiMessage] = []
        self.levels: list[tuple[int, bool]] = []

    def inject_msi(self, message: MsiMessage) -> None:
        self.messages.append(message)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        self.levels.append((gsi, asserted))


class Registers:
    """A BAR's handler that answers with its tag and the offset, and keeps every access."""

    def __init__(self, tag: int = 0) -> None:
        self.tag = tag
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        self.reads.append((offset, size))
        return self.tag

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


class Probe(PciFunction):
    """A function that keeps the calls made to it."""

    def __init__(self, slot: int = 3, func: int = 0, bus: int = 0, kind: str = "probe") -> None:
        context = DeviceContext(bdf=Bdf(bus=bus, slot=slot, func=func), kind=kind)
        super().__init__(context, vendor=0x1AF4, device=0x1000 + slot, class_code=0x020000, revision=1)
        self.calls: list[tuple[Any, ...]] = []

    def bar_mapped(self, index: int, base: int) -> None:
        self.calls.append(("mapped", index, base))

    def bar_unmapped(self, index: int) -> None:
        self.calls.append(("unmapped", index))

    def interrupts_changed(self) -> None:
        self.calls.append(("interrupts",))

    def command_changed(self) -> None:
        self.calls.append(("command",))


def make_resources(interrupts: InterruptSink, pio: Bus, mmio: Bus) -> Resources:
    """Resources whose memory and eventfds nobody here touches."""
    nothing: Any = None
    return Resources(
        memory=nothing,
        pio=pio,
        mmio=mmio,
        interrupts=interrupts,
        eventfds=nothing,
        main_loop=nothing,
        io_loop=IoLoop,
        device_failed=lambda device, error: None,
    )


class Setup:
    """A bus with functions on it, assigned, routed and attached; accessed as a guest does."""

    def __init__(self, *functions: PciFunction, ioapic_pins: int = 24) -> None:
        self.interrupts = Interrupts()
        self.pio = pio_bus()
        self.mmio = mmio_bus()
        self.bus = PciBus()
        for function in functions:
            self.bus.add(function)
        self.bus.assign()
        self.bus.route(ioapic_pins)
        self.bus.attach(make_resources(self.interrupts, self.pio, self.mmio))
        self.interrupts.levels.clear()  # the lines as they are, which the bus tells first

    def read(self, function: PciFunction, reg: int, size: int = 4) -> int:
        return self.bus.config_read(function.context.bdf, reg, size)

    def write(self, function: PciFunction, reg: int, value: int, size: int = 4) -> None:
        self.bus.config_write(function.context.bdf, reg, size, value)

    def capability(self, function: PciFunction, cap_id: int) -> int:
        """Walk the list as a driver does; 0 when it is not there."""
        at = self.read(function, 0x34, 1)
        for _ in range(48):
            if at == 0 or self.read(function, at, 1) == cap_id:
                return at
            at = self.read(function, at + 1, 1)
        raise AssertionError("the capability list does not end")
