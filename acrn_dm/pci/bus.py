"""The PCI bus: places functions' BARs, routes their pins, and finds the function that a configuration access means.

Configuration accesses come three ways: ports 0xCF8/0xCFC, the memory-mapped window (ECAM), and, on ACRN, decoded
requests of the kernel module (``config_read``/``config_write``). An access must be 1, 2 or 4 bytes and naturally
aligned; ECAM splits 8 bytes in two. Anything else, and any access to a function that is not there, reads as all ones
or is dropped.
"""

from collections import Counter

import attrs

from acrn_dm.base.bus import PLATFORM
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import define
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import Bdf
from acrn_dm.pci import config_space as cs
from acrn_dm.pci.bar import BarKind
from acrn_dm.pci.function import PciFunction
from acrn_dm.pci.intx import IntxRouter
from acrn_dm.pci.layout import (
    CONFIG_ADDRESS,
    CONFIG_DATA,
    ECAM_BASE,
    ECAM_BUS_SIZE,
    IO_WINDOW,
    MEM32_WINDOW,
    MEM64_BELOW_4G,
    MEM64_WINDOW,
    Window,
)
from acrn_dm.pci.pirq import PirqRouter

GIB = 1 << 30
MEMORY_ALIGNMENT = 4096  # no two memory BARs in one page: a guest may map each with its own attributes
ADDRESS_ENABLE = 1 << 31


def bdf_number(bdf: Bdf) -> int:
    """Bus, slot and function in 8, 5 and 3 bits."""
    return bdf.bus << 8 | bdf.slot << 3 | bdf.func


def all_ones(size: int) -> int:
    """What a read of *size* bytes gives where nobody answers."""
    return (1 << (8 * size)) - 1


@define(eq=False)
class _Allocator:
    """A window and how much of it is taken: naturally aligned stretches, upwards."""

    window: Window
    minimum: int
    next: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.next = self.window.base

    def take(self, size: int, function: PciFunction) -> int:
        step = max(size, self.minimum)
        base = -(-self.next // step) * step
        if base + size > self.window.end:
            text = f"no room for {size:#x} bytes in the {self.window.name} window of PCI ({self.window.size:#x} bytes)"
            raise ConfigError(text, option="-s", value=f"{function.context.bdf},{function.context.kind}")
        self.next = base + step
        return base


class PciBus:
    """All functions of one machine. Build: ``add`` each, ``assign``, ``route``, ``attach``."""

    def __init__(self) -> None:
        self._functions: dict[int, PciFunction] = {}
        self._router: IntxRouter | None = None
        self._io = _Allocator(IO_WINDOW, minimum=1)
        self._mem32 = _Allocator(MEM32_WINDOW, MEMORY_ALIGNMENT)
        self._mem64 = _Allocator(MEM64_WINDOW, MEMORY_ALIGNMENT)
        self.pirqs = PirqRouter()
        self._ports = ConfigPorts(self)
        self.config_accesses = 0  # statistics: counted without a lock

    @property
    def functions(self) -> tuple[PciFunction, ...]:
        """All functions by bus, slot and function number."""
        return tuple(f for _, f in sorted(self._functions.items()))

    @property
    def last_bus(self) -> int:
        """Highest bus number in use; the ECAM window ends behind it."""
        return max((f.context.bdf.bus for f in self._functions.values()), default=0)

    def find(self, bdf: Bdf) -> PciFunction | None:
        """The function at *bdf*."""
        return self._functions.get(bdf_number(bdf))

    def add(self, function: PciFunction) -> None:
        """Put *function* where its context says. Raises ConfigError: the place is taken, or a second ``one_only``."""
        place = function.context.bdf
        where = f"{place},{function.context.kind}"
        if bdf_number(place) in self._functions:
            other = self._functions[bdf_number(place)]
            raise ConfigError(f"the slot is taken by {other.context.kind}", option="-s", value=where)
        if function.one_only and any(type(f) is type(function) for f in self._functions.values()):
            raise ConfigError(f"there can be one {function.context.kind} only", option="-s", value=where)
        self._functions[bdf_number(place)] = function

    def assign(self) -> None:
        """Give every BAR its address, every slot its multi-function mark. Raises ConfigError when a window is full."""
        for function in self.functions:
            self.place(function)
        slots = Counter(number >> 3 for number in self._functions)
        for number, function in self._functions.items():
            multi = cs.MULTI_FUNCTION if slots[number >> 3] > 1 else 0
            function.config.set_power_on(cs.HEADER_TYPE, 1, multi)

    def place(self, function: PciFunction) -> None:
        """Give the BARs of *function* their addresses, behind those of all functions before it. Raises ConfigError."""
        for _, bar in sorted(function.bars.items()):
            high = bar.kind is BarKind.MEM64 and bar.size > MEM64_BELOW_4G
            allocator = self._io if bar.is_io else self._mem64 if high else self._mem32
            function.place_bar(bar, allocator.take(bar.size, function), prefetchable=high)

    def route(self, ioapic_pins: int) -> None:
        """Give every function that uses INTx a pin and a line of an IOAPIC with *ioapic_pins* pins."""
        self._router = IntxRouter(ioapic_pins)
        for function in self.functions:
            if function.intx is None:
                continue
            place = function.context.bdf
            self._router.assign(place.bus, place.slot, function.intx)
            function.config.set_power_on(cs.INTERRUPT_PIN, 1, function.intx.number + 1)
            function.config.set_power_on(cs.INTERRUPT_LINE, 1, self.pirqs.allocate())
        for function in self.functions:
            function.pirqs_routed(self.pirqs)

    def prt(self) -> tuple[tuple[int, int, int], ...]:
        """(slot, pin 0-3, gsi) of every routed pin of bus 0: what ACPI's ``_PRT`` says."""
        return () if self._router is None else self._router.routes()

    def mmio64_window(self) -> tuple[int, int]:
        """First and last address of the window for 64-bit BARs: ours, or what holds all of them where firmware has put
        one elsewhere (QEMU describes its windows in the same way, after the fact).
        """
        bars = [bar for f in self.functions for bar in f.bars.values() if bar.kind is BarKind.MEM64]
        high = [bar for bar in bars if bar.base >= 4 * GIB]
        if all(MEM64_WINDOW.base <= bar.base and bar.base + bar.size <= MEM64_WINDOW.end for bar in high):
            return MEM64_WINDOW.base, MEM64_WINDOW.end - 1
        first, end = min(bar.base for bar in high), max(bar.base + bar.size for bar in high)
        return first // GIB * GIB, -(-end // GIB) * GIB - 1

    def attach(self, resources: Resources) -> None:
        """Answer configuration accesses on the buses of *resources*, and let enabled BARs answer."""
        # A byte access to 0xCF9 is the reset control register's: it has priority over the address port around it.
        resources.pio.register(CONFIG_ADDRESS, 4, self._ports.address, "PCI config address", PLATFORM + 1)
        resources.pio.register(CONFIG_DATA, 4, self._ports.data, "PCI config data")
        resources.mmio.register(ECAM_BASE, (self.last_bus + 1) * ECAM_BUS_SIZE, Ecam(self), "PCI ECAM")
        if self._router is not None:
            for line in self._router.lines.values():
                line.connect(resources.interrupts)
                line.announce()
        for function in self.functions:
            function.connect(resources)

    def reset(self) -> None:
        """The bus's own power-on state; functions are reset one by one by who owns their order."""
        self._ports.latch = 0

    def config_read(self, bdf: Bdf, reg: int, size: int) -> int:
        """Read *size* bytes at register *reg* of the function at *bdf*, as the guest does."""
        return self.read(bdf_number(bdf), reg, size)

    def config_write(self, bdf: Bdf, reg: int, size: int, value: int) -> None:
        """Write *size* bytes at register *reg* of the function at *bdf*, as the guest does."""
        self.write(bdf_number(bdf), reg, size, value)

    def title(self, number: int) -> str:
        """How a line about a failed configuration access names the function: device, plugin, place."""
        function = self._functions.get(number)
        place = f"{number >> 8}:{number >> 3 & 0x1F}.{number & 7}"
        return f"the PCI function at {place}" if function is None else f"{function.context.blamed} at {place}"

    def read(self, number: int, reg: int, size: int) -> int:
        """``config_read`` with the place as one number."""
        self.config_accesses += 1
        function = self._functions.get(number)
        if function is None or size not in (1, 2, 4) or reg % size:
            return all_ones(size)
        with function.lock:
            read = function.config_read if reg < cs.SIZE else function.extended_read
            return read(reg, size) & all_ones(size)

    def write(self, number: int, reg: int, size: int, value: int) -> None:
        """``config_write`` with the place as one number."""
        self.config_accesses += 1
        function = self._functions.get(number)
        if function is None or size not in (1, 2, 4) or reg % size:
            return
        with function.lock:
            write = function.config_write if reg < cs.SIZE else function.extended_write
            write(reg, size, value & all_ones(size))


class ConfigPorts:
    """Configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2): the address latch and the data window behind it."""

    def __init__(self, bus: PciBus) -> None:
        self.bus = bus
        self.latch = 0
        self.address = _AddressPort(self)
        self.data = _DataPort(self)

    def target(self, offset: int) -> tuple[int, int] | None:
        """Function and register that byte *offset* of the data window means; None while the latch is not enabled."""
        if not self.latch & ADDRESS_ENABLE:
            return None
        # Bits 27:24 extend the register number to 12 bits, as AMD's processors and the original have it.
        reg = (self.latch & 0xFC) | (self.latch >> 24 & 0xF) << 8
        return self.latch >> 8 & 0xFFFF, reg + offset


class _AddressPort:
    """0xCF8: only 32-bit accesses are configuration accesses."""

    def __init__(self, ports: ConfigPorts) -> None:
        self._ports = ports

    def read(self, offset: int, size: int) -> int:
        return self._ports.latch if size == 4 else all_ones(size)

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 4:
            self._ports.latch = value & ~3


class _DataPort:
    """0xCFC-0xCFF: the addressed register's bytes."""

    def __init__(self, ports: ConfigPorts) -> None:
        self._ports = ports

    def read(self, offset: int, size: int) -> int:
        target = self._ports.target(offset)
        return all_ones(size) if target is None else self._ports.bus.read(*target, size)

    def holder(self, offset: int) -> str:
        target = self._ports.target(offset)
        return "" if target is None else f"{self._ports.bus.title(target[0])}, register {target[1]:#x}"

    def write(self, offset: int, size: int, value: int) -> None:
        target = self._ports.target(offset)
        if target is not None:
            self._ports.bus.write(*target, size, value)


class Ecam:
    """The memory-mapped window: bus in bits 27:20, slot 19:15, function 14:12, register 11:0 (PCI Express 7.2.2)."""

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        """Load."""
        if size == 8 and offset % 8 == 0:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        return self._bus.read(offset >> 12, offset & 0xFFF, size)

    def holder(self, offset: int) -> str:
        """The function and the register at *offset*."""
        return f"{self._bus.title(offset >> 12)}, register {offset & 0xFFF:#x}"

    def write(self, offset: int, size: int, value: int) -> None:
        """Store."""
        if size == 8 and offset % 8 == 0:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
        else:
            self._bus.write(offset >> 12, offset & 0xFFF, size, value)
