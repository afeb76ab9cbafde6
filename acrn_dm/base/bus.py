"""Address dispatch: which handler answers a guest's access to a port or a physical address.

A bus holds ranges with a priority, which may overlap, in a flat, sorted, immutable table: stretches that do not
overlap, each with all ranges that cover it. A look-up of a vCPU thread is one bisection and needs no lock; a change
computes those stretches anew that it touches, so that a guest that switches one BAR pays for what lies there and not
for the whole bus. A handler runs after the look-up, outside any lock of the bus; it may still be called once after its
range was removed by another vCPU and must tolerate that (devices do, under their own lock).
"""

import bisect
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import attrs

from acrn_dm.base.records import define, frozen

PLATFORM = 0  # ports and windows whose place is ABI: they win over a BAR that the guest moves on top of them
BAR = 10


class Handler(Protocol):
    """The code behind one range. *offset* is relative to the range's base, *size* is 1, 2, 4 or 8 bytes."""

    def read(self, offset: int, size: int) -> int:
        """Return the value at *offset*, 0 <= value < 256**size."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take *value*, 0 <= value < 256**size."""


@frozen(kw_only=True, eq=False)
class Range:
    """One registered range; the token to unregister it with."""

    base: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    handler: Handler
    name: str
    priority: int = PLATFORM
    order: int = 0  # of registration

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.base + self.size

    @property
    def rank(self) -> tuple[int, int]:
        """The lowest among ranges that overlap answers."""
        return self.priority, self.order


Holders = tuple[Range, ...]  # the ranges that cover a stretch, by rank
Stretch = tuple[int, int, Holders]  # start, end, holders; one without holders is not kept


@define(eq=False)
class Bus:
    """One address space: 64 Ki ports, or guest physical addresses."""

    name: str
    limit: int
    _ranges: dict[Range, None] = attrs.field(factory=dict)
    _table: tuple[tuple[int, ...], tuple[Stretch, ...]] = ((), ())  # swapped as one: readers take no lock
    _orders: "itertools.count[int]" = attrs.field(factory=itertools.count, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def register(self, base: int, size: int, handler: Handler, name: str, priority: int = PLATFORM) -> Range:
        """Claim [base, base + size); overlaps are legal, lower *priority* wins, then the earlier registration."""
        if size <= 0 or base < 0 or base + size > self.limit:
            raise ValueError(f"{self.name}: range {base:#x}+{size:#x} is outside the address space")
        with self._lock:
            claimed = Range(
                base=base, size=size, handler=handler, name=name, priority=priority, order=next(self._orders)
            )
            self._ranges[claimed] = None
            self._change(claimed, lambda holders: _with(holders, claimed))
        return claimed

    def unregister(self, claimed: Range) -> None:
        """Release a range; releasing twice is harmless."""
        with self._lock:
            if claimed in self._ranges:
                del self._ranges[claimed]
                self._change(claimed, lambda holders: _without(holders, claimed))

    def find(self, addr: int, size: int) -> tuple[Range, int] | None:
        """Return the range that answers at *addr*, if it holds all of the access, and the offset of *addr* in it.

        The first byte decides, as on hardware: a 4-byte access to 0xCF8 is the PCI address port's, although the byte
        at 0xCF9 belongs to the reset control register. None when nobody answers.
        """
        starts, stretches = self._table
        i = bisect.bisect_right(starts, addr) - 1
        if i < 0:
            return None
        _, end, holders = stretches[i]
        claimed = holders[0]
        if addr < end and addr + size <= claimed.end:
            return claimed, addr - claimed.base
        return None

    def read(self, addr: int, size: int) -> int:
        """Read *size* bytes (1, 2, 4 or 8) at *addr* as the guest does; nobody there reads as all ones."""
        found = self.find(addr, size)
        if found is None:
            return (1 << (8 * size)) - 1
        claimed, offset = found
        return claimed.handler.read(offset, size) & ((1 << (8 * size)) - 1)

    def write(self, addr: int, size: int, value: int) -> None:
        """Write *size* bytes (1, 2, 4 or 8) at *addr* as the guest does; nobody there drops them."""
        found = self.find(addr, size)
        if found is None:
            return
        claimed, offset = found
        claimed.handler.write(offset, size, value)

    def _change(self, claimed: Range, change: Callable[[Holders], Holders]) -> None:
        """Apply *change* to the holders of each stretch inside *claimed*."""
        starts, stretches = self._table
        first = bisect.bisect_left(starts, claimed.base) - 1
        if first < 0 or stretches[first][1] < claimed.base:  # one that ends there may become one with what follows
            first += 1
        behind = bisect.bisect_right(starts, claimed.end)
        pieces = _cut(stretches[first:behind], claimed.base, claimed.end)
        new = _merged(
            (start, end, change(holders) if claimed.base <= start < claimed.end else holders)
            for start, end, holders in pieces
        )
        self._table = (
            (*starts[:first], *(start for start, _, _ in new), *starts[behind:]),
            (*stretches[:first], *new, *stretches[behind:]),
        )


def _with(holders: Holders, claimed: Range) -> Holders:
    at = bisect.bisect(holders, claimed.rank, key=lambda r: r.rank)
    return (*holders[:at], claimed, *holders[at:])


def _without(holders: Holders, claimed: Range) -> Holders:
    at = bisect.bisect_left(holders, claimed.rank, key=lambda r: r.rank)
    return (*holders[:at], *holders[at + 1 :])


def _cut(stretches: Iterable[Stretch], base: int, end: int) -> Iterator[Stretch]:
    """Cut *stretches* at *base* and *end*, and fill the gaps in between with stretches that nobody holds."""
    at = base
    for start, stop, holders in stretches:
        if at < min(start, end):
            yield at, min(start, end), ()
        edges = sorted({start, stop, min(max(start, base), stop), min(max(start, end), stop)})
        yield from ((low, high, holders) for low, high in itertools.pairwise(edges))
        at = max(at, stop)
    if at < end:
        yield at, end, ()


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Join neighbours with the same holders, and leave out what nobody holds."""
    merged: list[Stretch] = []
    for start, end, holders in stretches:
        if merged and merged[-1][1:] == (start, holders):
            merged[-1] = (merged[-1][0], end, holders)
        elif holders:
            merged.append((start, end, holders))
    return merged


def pio_bus() -> Bus:
    """The 64 Ki I/O ports."""
    return Bus(name="pio", limit=1 << 16)


def mmio_bus() -> Bus:
    """Guest physical addresses (52 bits)."""
    return Bus(name="mmio", limit=1 << 52)
