"""The boot image, made of the user's files: pieces with their guest addresses, and the processor's entry state.

Made without touching guest memory, so that a dry run checks exactly what a start would do.
"""

import itertools
from collections.abc import Sequence

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.boot.files import ImageFile
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange

PAGE = 4096
ELF_MAGIC = b"\x7fELF"
_ZEROS = bytes(layout.MIB)


@frozen(kw_only=True, eq=False)
class GuestSetup:
    """The facts that every loader needs beside the kernel; *rsdp* is the address of ACPI's root pointer."""

    ranges: Sequence[MemoryRange]
    ramdisk: ImageFile | None
    bootargs: str
    rsdp: int = attrs.field(repr=hex)

    @property
    def low_memory_end(self) -> int:
        """First address behind the RAM that starts at 0."""
        return low_memory_end(self.ranges)

    def place_ramdisk(self, ceiling: int, floor: int) -> int:
        """Return the highest page-aligned address from which the ramdisk ends at or below *ceiling*.

        Without a ramdisk that is the ceiling. Raises ConfigError when it is below *floor*.
        """
        size = 0 if self.ramdisk is None else len(self.ramdisk.data)
        gpa = (ceiling - size) // PAGE * PAGE
        if self.ramdisk is not None and gpa < floor:
            raise self.ramdisk.error(
                f"a ramdisk of {size} bytes does not fit between {floor:#x}, where the kernel ends, and {ceiling:#x}: "
                "give the guest more memory (-m)"
            )
        return gpa


@frozen(kw_only=True, eq=False)
class Piece:
    """Bytes at a guest address, made from *file* or by us.

    *cleared* bytes behind them become 0; nothing else may lie in the *room* bytes from *gpa* on.
    """

    name: str
    gpa: int = attrs.field(repr=hex)
    data: bytes | memoryview = attrs.field(repr=False)
    cleared: int = 0
    room: int = 0
    file: ImageFile | None = None

    @property
    def end(self) -> int:
        """First address behind everything this piece needs."""
        return self.gpa + max(len(self.data) + self.cleared, self.room)

    def __str__(self) -> str:
        return f"the {self.name} ({self.gpa:#x}-{self.end:#x})"

    def error(self, problem: str) -> ConfigError:
        """Return the error that blames the file behind this piece, or the memory size."""
        return ConfigError(problem, option="-m") if self.file is None else self.file.error(problem)


@frozen(kw_only=True, eq=False)
class BootImage:
    """A bootable guest."""

    pieces: tuple[Piece, ...]
    registers: BootRegisters

    def with_pieces(self, pieces: Sequence[Piece]) -> "BootImage":
        """Return the same guest with *pieces* in its memory, too."""
        return attrs.evolve(self, pieces=(*self.pieces, *pieces))

    def with_unless_taken(self, pieces: Sequence[Piece]) -> "BootImage":
        """Return the same guest with *pieces*, or without all of them where it uses some of that memory itself."""
        taken = any(ours.gpa < p.end and p.gpa < ours.end for ours in pieces for p in self.pieces)
        return self if taken else self.with_pieces(pieces)

    def check(self, ranges: Sequence[MemoryRange]) -> None:
        """Check that every piece lies in RAM and no two meet. Raises ConfigError."""
        for piece in self.pieces:
            if not any(r.gpa <= piece.gpa and piece.end <= r.gpa + r.size for r in ranges):
                raise piece.error(f"{piece} does not fit into the guest's memory: give it more (-m)")
        ordered = sorted((p for p in self.pieces if p.end > p.gpa), key=lambda p: p.gpa)
        for lower, upper in itertools.pairwise(ordered):
            if lower.end > upper.gpa:
                blamed = upper if lower.file is None else lower
                raise blamed.error(f"{lower} and {upper} overlap; more memory (-m) may help")

    def write(self, memory: GuestMemory) -> None:
        """Copy all pieces into guest memory."""
        for piece in self.pieces:
            behind = piece.gpa + len(piece.data)
            if piece.data:
                memory.write(piece.gpa, piece.data)
            for gpa in range(behind, behind + piece.cleared, len(_ZEROS)):
                memory.write(gpa, _ZEROS[: behind + piece.cleared - gpa])


def low_memory_end(ranges: Sequence[MemoryRange]) -> int:
    """Return the first address behind the RAM that starts at 0."""
    return next(r.size for r in ranges if r.gpa == 0)
