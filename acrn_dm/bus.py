"""Address dispatch: which handler answers a guest's access to a port or a physical address.

A bus holds non-atomic ranges with a priority; a change computes a flat, sorted, immutable table, so that the look-up
of a vCPU thread needs no lock. A handler runs after the look-up, outside any lock of the bus; it may still be called
once after its range was removed by another vCPU and must tolerate that (devices do, under their own lock).
"""

import bisect
import itertools
import threading
from typing import Protocol

import attrs

PLATFORM = 0  # ports and windows whose place is ABI: they win over a BAR that the guest moves on top of them
BAR = 10


class Handler(Protocol):
    """Answers accesses inside one range; *offset* is relative to the range's base, *size* is 1, 2, 4 or 8 bytes."""

    def read(self, offset: int, size: int) -> int:
        """Return the value at *offset*, 0 <= value < 256**size."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take *value*, 0 <= value < 256**size."""


@attrs.frozen(kw_only=True, eq=False)
class Range:
    """One registered range; the token to unregister it with."""

    base: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    handler: Handler
    name: str
    priority: int = PLATFORM

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.base + self.size


@attrs.define(eq=False)
class Bus:
    """One address space: 64 Ki ports, or guest physical addresses."""

    name: str
    limit: int
    unclaimed: int = 0  # accesses nobody answered: reads give all ones, writes vanish
    _ranges: tuple[Range, ...] = ()
    _table: tuple[tuple[int, ...], tuple[tuple[int, int, Range], ...]] = (
        (),
        (),
    )  # swapped as one: readers take no lock
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def register(self, base: int, size: int, handler: Handler, name: str, priority: int = PLATFORM) -> Range:
        """Claim [base, base + size); overlaps are legal, lower *priority* wins, then the earlier registration."""
        if size <= 0 or base < 0 or base + size > self.limit:
            raise ValueError(f"{self.name}: range {base:#x}+{size:#x} is outside the address space")
        claimed = Range(base=base, size=size, handler=handler, name=name, priority=priority)
        with self._lock:
            self._rebuild((*self._ranges, claimed))
        return claimed

    def unregister(self, claimed: Range) -> None:
        """Release a range; releasing twice is harmless."""
        with self._lock:
            self._rebuild(tuple(r for r in self._ranges if r is not claimed))

    def find(self, addr: int, size: int) -> tuple[Range, int] | None:
        """Return the range that answers at *addr*, if it holds all of the access, and the offset of *addr* in it.

        The first byte decides, as on hardware: a 4-byte access to 0xCF8 is the PCI address port's, although the byte
        at 0xCF9 belongs to the reset control register. None when nobody answers.
        """
        starts, flat = self._table
        i = bisect.bisect_right(starts, addr) - 1
        if i < 0:
            return None
        start, end, claimed = flat[i]
        if start <= addr < end and addr + size <= claimed.end:
            return claimed, addr - claimed.base
        return None

    def read(self, addr: int, size: int) -> int:
        """Read *size* bytes (1, 2, 4 or 8) at *addr* as the guest does; nobody there reads as all ones."""
        found = self.find(addr, size)
        if found is None:
            self.unclaimed += 1
            return (1 << (8 * size)) - 1
        claimed, offset = found
        return claimed.handler.read(offset, size) & ((1 << (8 * size)) - 1)

    def write(self, addr: int, size: int, value: int) -> None:
        """Write *size* bytes (1, 2, 4 or 8) at *addr* as the guest does; nobody there drops them."""
        found = self.find(addr, size)
        if found is None:
            self.unclaimed += 1
            return
        claimed, offset = found
        claimed.handler.write(offset, size, value)

    def ranges(self) -> tuple[Range, ...]:
        """All registered ranges, by address."""
        return tuple(sorted(self._ranges, key=lambda r: (r.base, r.priority)))

    def _rebuild(self, ranges: tuple[Range, ...]) -> None:
        edges = sorted({edge for r in ranges for edge in (r.base, r.end)})
        order = {id(r): i for i, r in enumerate(ranges)}
        flat: list[tuple[int, int, Range]] = []
        for start, end in itertools.pairwise(edges):
            holders = [r for r in ranges if r.base <= start and end <= r.end]
            if not holders:
                continue
            best = min(holders, key=lambda r: (r.priority, order[id(r)]))
            if flat and flat[-1][2] is best and flat[-1][1] == start:
                flat[-1] = (flat[-1][0], end, best)
            else:
                flat.append((start, end, best))
        self._ranges = ranges
        self._table = (tuple(f[0] for f in flat), tuple(flat))


def pio_bus() -> Bus:
    """The 64 Ki I/O ports."""
    return Bus(name="pio", limit=1 << 16)


def mmio_bus() -> Bus:
    """Guest physical addresses (52 bits)."""
    return Bus(name="mmio", limit=1 << 52)
