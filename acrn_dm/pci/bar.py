"""Base address registers: what a BAR is, where the guest put it, and the window on a bus that it answers in.

A guest finds a BAR's size by writing all ones and reading back. While the register holds such a sizing value the BAR
keeps answering at its last real address, so that sizing with decoding on (which no driver should do, and several do)
moves nothing, whatever address is written afterwards.
"""

import enum
import threading

import attrs

from acrn_dm.base import bus
from acrn_dm.base.bus import Bus, Handler, Range
from acrn_dm.base.records import define
from acrn_dm.pci import config_space
from acrn_dm.pci.config_space import ConfigSpace

COUNT = 6
ALL_ONES = 0xFFFF_FFFF
ACCESS_SIZES = (1, 2, 4, 8)
PREFETCHABLE = 0x8


class BarKind(enum.Enum):
    """Address space and width; the value is the register's fixed low bits."""

    IO = 0x1
    MEM32 = 0x0
    MEM64 = 0x4


MINIMUM_SIZE = {BarKind.IO: 4, BarKind.MEM32: 16, BarKind.MEM64: 16}
MAXIMUM_SIZE = {BarKind.IO: 1 << 15, BarKind.MEM32: 1 << 31, BarKind.MEM64: 1 << 51}


def round_up_size(size: int, kind: BarKind) -> int:
    """The size of a BAR for *size* bytes: a power of two, at least the kind's minimum. Raises ValueError."""
    rounded = max(1 << max(size - 1, 0).bit_length(), MINIMUM_SIZE[kind])
    if size <= 0 or rounded > MAXIMUM_SIZE[kind]:
        raise ValueError(f"a BAR of {size:#x} bytes ({kind.name}) can't be made")
    return rounded


@define(eq=False)
class Bar:
    """One BAR; a 64-bit one takes the next register too. Addresses are ports or guest physical addresses."""

    index: int
    size: int = attrs.field(repr=hex)
    kind: BarKind
    handler: Handler = attrs.field(repr=False)
    prefetchable: bool = False
    assigned: int = attrs.field(default=0, repr=hex)  # by the machine: where it is after every reset
    base: int = attrs.field(default=0, repr=hex)  # by the guest: the last real address
    window: "BarWindow | None" = attrs.field(default=None, repr=False)  # what stands on the bus now
    _sizing: set[int] = attrs.field(factory=set, init=False, repr=False)  # registers that hold a sizing value

    @property
    def registers(self) -> tuple[int, ...]:
        """Offsets of its registers in the configuration space."""
        first = config_space.BAR0 + 4 * self.index
        return (first, first + 4) if self.kind is BarKind.MEM64 else (first,)

    @property
    def is_io(self) -> bool:
        """Whether it lies in the I/O ports."""
        return self.kind is BarKind.IO

    @property
    def mapped(self) -> bool:
        """Whether it answers on the bus."""
        return self.window is not None

    @property
    def flags(self) -> int:
        """The register's read-only low bits."""
        return self.kind.value | (PREFETCHABLE if self.prefetchable else 0)

    def define(self, config: ConfigSpace) -> None:
        """Lay its registers out, holding ``assigned``."""
        span = 4 * len(self.registers)
        address_bits = (1 << (16 if self.is_io else 8 * span)) - 1
        config.define(self.registers[0], span, self.assigned | self.flags, writable=address_bits & -self.size)
        self.restore()

    def restore(self) -> None:
        """The registers hold the power-on values again."""
        self.base = self.assigned
        self._sizing.clear()

    def written(self, config: ConfigSpace, offset: int, size: int, value: int) -> bool:
        """The guest wrote *value* over [offset, offset + size); return whether that moved the BAR."""
        touched = [r for r in self.registers if offset < r + 4 and r < offset + size]
        if not touched:
            return False
        sizing = size == 4 and value == ALL_ONES and offset in touched
        (self._sizing.update if sizing else self._sizing.difference_update)(touched)
        before = self.base
        if not self._sizing:
            self.base = config.read(self.registers[0], 4 * len(self.registers)) & -self.size
        return self.base != before

    def fits(self, space: Bus) -> bool:
        """Whether it can answer where it is; address 0 means "not placed"."""
        return self.base > 0 and self.base + self.size <= space.limit


class BarWindow:
    """A mapped BAR on its bus: takes the function's lock and bounds the access."""

    def __init__(self, bar: Bar, lock: threading.RLock) -> None:
        self._bar = bar
        self._lock = lock
        self._range: Range | None = None

    def map(self, space: Bus, name: str) -> None:
        """Stand on *space* at the BAR's address."""
        self._bar.window = self
        self._range = space.register(self._bar.base, self._bar.size, self, name, bus.BAR)

    def unmap(self, space: Bus) -> None:
        """Leave *space*; an access that another vCPU has begun finds that it is too late."""
        self._bar.window = None
        if self._range is not None:
            space.unregister(self._range)

    def read(self, offset: int, size: int) -> int:
        """The guest reads; all ones where nothing answers."""
        with self._lock:
            if self._answers(offset, size):
                return self._bar.handler.read(offset, size)
            return (1 << (8 * size)) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes; dropped where nothing answers."""
        with self._lock:
            if self._answers(offset, size):
                self._bar.handler.write(offset, size, value & ((1 << (8 * size)) - 1))

    def _answers(self, offset: int, size: int) -> bool:
        inside = offset >= 0 and offset + size <= self._bar.size
        return self._bar.window is self and size in ACCESS_SIZES and inside
