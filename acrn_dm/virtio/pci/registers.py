"""Register tables: name, offset, width, access. One generic reader and writer serves every register structure.

An access must have a register's exact offset and width. Eight bytes are two accesses of four, low half first, which is
how 64-bit fields are reached (spec 4.1.3.1). Anything else reads as all ones and is dropped when written, like an
access nobody claims; a guest's odd access has no other effect.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from acrn_dm.base.records import frozen

T = TypeVar("T")


@frozen
class Register(Generic[T]):
    """One register of a structure whose state is a ``T``. Without *write* it is read-only, without *read* it is 0."""

    name: str
    offset: int
    width: int
    read: Callable[[T], int] | None = None
    write: Callable[[T, int], None] | None = None

    @property
    def access(self) -> str:
        """``RO``, ``RW`` or ``WO``, as in a data sheet."""
        if self.write is None:
            return "RO"
        return "WO" if self.read is None else "RW"


def all_ones(size: int) -> int:
    """What an access of *size* bytes reads where nothing answers."""
    return (1 << (8 * size)) - 1


class RegisterMap(Generic[T]):
    """A structure: registers found by (offset, width)."""

    def __init__(self, registers: Iterable[Register[T]]) -> None:
        self.registers = tuple(registers)
        self._by_place = {(r.offset, r.width): r for r in self.registers}

    @property
    def size(self) -> int:
        """Bytes from 0 to the end of the last register."""
        return max(r.offset + r.width for r in self.registers)

    def find(self, offset: int, size: int) -> Register[T] | None:
        """The register at exactly this place, or None."""
        return self._by_place.get((offset, size))

    def read(self, state: T, offset: int, size: int) -> int:
        """Read as the driver does; see the module for odd accesses."""
        if size == 8:
            return self.read(state, offset, 4) | self.read(state, offset + 4, 4) << 32
        register = self.find(offset, size)
        if register is None:
            return all_ones(size)
        return register.read(state) if register.read is not None else 0

    def write(self, state: T, offset: int, size: int, value: int) -> None:
        """Write as the driver does; see the module for odd accesses."""
        if size == 8:
            self.write(state, offset, 4, value & all_ones(4))
            self.write(state, offset + 4, 4, value >> 32)
            return
        register = self.find(offset, size)
        if register is not None and register.write is not None:
            register.write(state, value)
