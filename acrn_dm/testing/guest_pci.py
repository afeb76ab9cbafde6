"""A PCI function as a guest finds it: configuration by 0xCF8/0xCFC, BARs by sizing, capabilities by walking."""

import functools
import itertools
from collections.abc import Iterator
from typing import Protocol

import attrs

from acrn_dm.base.irq import MsiMessage

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
COMMAND, STATUS, HEADER_BARS, CAPABILITIES, INTERRUPT_PIN = 0x04, 0x06, 0x10, 0x34, 0x3D
DECODE = 0x3  # I/O and memory
CAP_MSI, CAP_VENDOR, CAP_MSIX = 0x05, 0x09, 0x11
MSIX_ENABLE, MSIX_FUNCTION_MASK = 0x8000, 0x4000
MSI_ADDRESS = 0xFEE0_0000
MAX_CAPABILITIES = 48  # more can't fit in the configuration space: the list loops


class Processor(Protocol):
    """The accesses that a guest can make; a ``SimVm`` is one."""

    def pio_read(self, port: int, size: int) -> int:
        """IN."""

    def pio_write(self, port: int, size: int, value: int) -> None:
        """OUT."""

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load."""

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Store."""


@attrs.frozen(kw_only=True)
class GuestBar:
    """A BAR as sizing showed it."""

    index: int
    base: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    io: bool
    wide: bool = False


@attrs.frozen(kw_only=True)
class Capability:
    """An entry of the capability list; *at* is the offset of its header."""

    id: int
    at: int = attrs.field(repr=hex)


def message_name(message: MsiMessage) -> str:
    """The function and vector of an MSI, by the data that ``GuestFunction`` gives: ``3.0 vector 1``, ``3.0 msi``."""
    if message.addr != MSI_ADDRESS:
        return f"to {message.addr:#x}"
    number, vector = message.data >> 16, message.data & 0xFFFF
    place = number or vector  # MSI has 16 bits, which are the function's number
    return f"{place >> 3 & 31}.{place & 7} {f'vector {vector}' if number else 'msi'}"


class GuestFunction:
    """The function in one slot. ``bars`` is what the guest believes; after moving one, call ``find_bars`` again."""

    def __init__(self, vm: Processor, slot: int, func: int = 0, bus: int = 0) -> None:
        self.vm = vm
        self.slot = slot
        self.func = func
        self._number = bus << 8 | slot << 3 | func
        if self.read(0, 2) == 0xFFFF:
            raise LookupError(f"nothing answers in slot {slot}")
        self.bars = self.find_bars()
        self.capabilities = list(itertools.islice(self._capability_list(), MAX_CAPABILITIES))

    # Configuration space

    def read(self, offset: int, size: int) -> int:
        """Configuration read of 1, 2 or 4 bytes."""
        self._select(offset)
        return self.vm.pio_read(CONFIG_DATA + offset % 4, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Configuration write of 1, 2 or 4 bytes."""
        self._select(offset)
        self.vm.pio_write(CONFIG_DATA + offset % 4, size, value)

    def find_bars(self) -> dict[int, GuestBar]:
        """Size every BAR, with decoding off meanwhile."""
        command = self.read(COMMAND, 2)
        self.write(COMMAND, 2, command & ~DECODE)
        bars: dict[int, GuestBar] = {}
        index = 0
        while index < 6:
            bar = self._size(index)
            if bar is not None:
                bars[index] = bar
                index += bar.wide
            index += 1
        self.write(COMMAND, 2, command)
        return bars

    def move_bar(self, index: int, base: int) -> None:
        """Put a BAR elsewhere, decoding off meanwhile."""
        command = self.read(COMMAND, 2)
        self.write(COMMAND, 2, command & ~DECODE)
        self.write(HEADER_BARS + 4 * index, 4, base & 0xFFFF_FFFF)
        if self.bars[index].wide:
            self.write(HEADER_BARS + 4 * index + 4, 4, base >> 32)
        self.write(COMMAND, 2, command)
        self.bars[index] = attrs.evolve(self.bars[index], base=base)

    def walk_capabilities(self) -> list[Capability]:
        """The capability list, in order. Raises ValueError when it does not end; ``capabilities`` has its beginning."""
        found = list(itertools.islice(self._capability_list(), MAX_CAPABILITIES + 1))
        if len(found) > MAX_CAPABILITIES:
            raise ValueError("the capability list does not end")
        return found

    def capability(self, cap_id: int) -> Capability | None:
        """The first capability with that id."""
        return next((c for c in self.capabilities if c.id == cap_id), None)

    # BARs

    def bar_read(self, index: int, offset: int, size: int) -> int:
        """Read inside a BAR."""
        bar = self.bars[index]
        return (self.vm.pio_read if bar.io else self.vm.mmio_read)(bar.base + offset, size)

    def bar_write(self, index: int, offset: int, size: int, value: int) -> None:
        """Write inside a BAR."""
        bar = self.bars[index]
        (self.vm.pio_write if bar.io else self.vm.mmio_write)(bar.base + offset, size, value)

    # Interrupts

    @property
    def vectors(self) -> int:
        """Entries of the MSI-X table; 0 without MSI-X."""
        cap = self.capability(CAP_MSIX)
        return 0 if cap is None else (self.read(cap.at + 2, 2) & 0x7FF) + 1

    def message_data(self, vector: int) -> int:
        """The data this guest puts into an MSI-X entry: tells function and vector apart from all others."""
        return self._number << 16 | vector

    @property
    def msi_data(self) -> int:
        """The data this guest gives to MSI, of which there are 16 bits: the function's number, bus << 8 | slot << 3 |
        function.
        """
        return self._number

    @property
    def msi_enabled(self) -> bool:
        """Whether this guest switched MSI on."""
        cap = self.capability(CAP_MSI)
        return cap is not None and bool(self.read(cap.at + 2, 2) & 1)

    def enable_msix(self, enable: bool = True) -> None:
        """Fill the whole table, unmasked, and switch MSI-X on (or just off)."""
        cap = self.capability(CAP_MSIX)
        if cap is None:
            raise LookupError("the function has no MSI-X")
        for vector in range(self.vectors if enable else 0):
            self.write_vector(vector, self.message_data(vector))
        self.write(cap.at + 2, 2, MSIX_ENABLE if enable else 0)

    @property
    def msix_enabled(self) -> bool:
        """Whether this guest switched MSI-X on."""
        cap = self.capability(CAP_MSIX)
        return cap is not None and bool(self.read(cap.at + 2, 2) & MSIX_ENABLE)

    def write_vector(self, vector: int, data: int, *, masked: bool = False) -> None:
        """Program one MSI-X entry, masked while it changes."""
        self.mask(vector)
        for offset, value in ((0, MSI_ADDRESS), (4, 0), (8, data)):
            self._write_entry(vector, offset, value)
        self.mask(vector, masked)

    def mask(self, vector: int, masked: bool = True) -> None:
        """Set or clear the mask bit of one MSI-X entry."""
        self._write_entry(vector, 12, int(masked))

    def mask_function(self, masked: bool = True) -> None:
        """Set or clear MSI-X's function mask."""
        cap = self.capability(CAP_MSIX)
        assert cap is not None
        self.write(cap.at + 2, 2, MSIX_ENABLE | (MSIX_FUNCTION_MASK if masked else 0))

    def pending(self, vector: int) -> bool:
        """The pending bit of one MSI-X entry."""
        cap = self.capability(CAP_MSIX)
        assert cap is not None
        place = self.read(cap.at + 8, 4)
        return bool(self.bar_read(place & 7, (place & ~7) + vector // 32 * 4, 4) >> vector % 32 & 1)

    def enable_msi(self, enable: bool = True) -> None:
        """Program and switch on the one MSI vector."""
        cap = self.capability(CAP_MSI)
        if cap is None:
            raise LookupError("the function has no MSI")
        self.write(cap.at + 4, 4, MSI_ADDRESS)
        self.write(cap.at + 8, 4, 0)
        self.write(cap.at + 12, 2, self.msi_data)
        self.write(cap.at + 2, 2, int(enable))

    @property
    def interrupt_status(self) -> bool:
        """The Interrupt Status bit of the PCI Status register."""
        return bool(self.read(STATUS, 2) & 8)

    def _capability_list(self) -> Iterator[Capability]:
        at = self.read(CAPABILITIES, 1)
        while at:
            yield Capability(id=self.read(at, 1), at=at)
            at = self.read(at + 1, 1)

    def _write_entry(self, vector: int, offset: int, value: int) -> None:
        index, start = self._table
        self.bar_write(index, start + 16 * vector + offset, 4, value)

    @functools.cached_property
    def _table(self) -> tuple[int, int]:
        """Where the MSI-X table is: the BAR, and the offset in it."""
        cap = self.capability(CAP_MSIX)
        assert cap is not None
        place = self.read(cap.at + 4, 4)
        return place & 7, place & ~7

    def _select(self, offset: int) -> None:
        self.vm.pio_write(CONFIG_ADDRESS, 4, 1 << 31 | self._number << 8 | offset & 0xFC)

    def _size(self, index: int) -> GuestBar | None:
        at = HEADER_BARS + 4 * index
        low = self._probe(at)
        old_low, sized_low = low
        if not sized_low:
            return None
        if sized_low & 1:
            mask, base = sized_low & 0xFFFC, old_low & ~3
            return GuestBar(index=index, base=base, size=(~mask & 0xFFFF) + 1, io=True)
        wide = sized_low & 6 == 4
        old_high, sized_high = self._probe(at + 4) if wide else (0, 0xFFFF_FFFF)
        mask = sized_high << 32 | sized_low & ~0xF
        base = old_high << 32 | old_low & ~0xF
        return GuestBar(index=index, base=base, size=(~mask & (1 << 64) - 1) + 1, io=False, wide=wide)

    def _probe(self, at: int) -> tuple[int, int]:
        """The register at *at*, and what it reads when all ones are written; it is as before then."""
        self._select(at)
        old = self.vm.pio_read(CONFIG_DATA, 4)
        self.vm.pio_write(CONFIG_DATA, 4, 0xFFFF_FFFF)
        sized = self.vm.pio_read(CONFIG_DATA, 4)
        self.vm.pio_write(CONFIG_DATA, 4, old)
        return old, sized
