"""ACPI tables for firmware that places them itself: blobs with offsets instead of addresses, and a script that says how
to put them together.

Source: QEMU docs/specs/fw_cfg.rst and hw/acpi/bios-linker-loader (the interface, which EDK II implements): commands of
128 bytes, in order: allocate a blob, add a blob's address to a pointer, put a checksum.
"""

import struct
from collections.abc import Iterable

import attrs

from acrn_dm.base.records import frozen
from acrn_dm.boot.acpi.build import RSDP_GPA, build_acpi
from acrn_dm.boot.acpi.inputs import AcpiInputs

TABLES, RSDP = "etc/acpi/tables", "etc/acpi/rsdp"
COMMAND_SIZE = 128
ALLOCATE = struct.Struct("<I56sIB")  # file, alignment, zone
ADD_POINTER = struct.Struct("<I56s56sIB")  # file with the pointer, file pointed to, offset, size
ADD_CHECKSUM = struct.Struct("<I56sIII")  # file, offset of the checksum, start, length
ZONE_HIGH, ZONE_LOW = 1, 2  # anywhere below 4 GiB; where the root pointer is looked for
ALIGNMENT = 64

# Pointers inside tables: offset, size.
RSDP_POINTERS = ((16, 4), (24, 8))
FADT_POINTERS = ((36, 4), (40, 4), (140, 8))
HEADER = 36


@frozen(kw_only=True)
class Linked:
    """The contents of the three files."""

    tables: bytes = attrs.field(repr=False)
    rsdp: bytes = attrs.field(repr=False)
    script: bytes = attrs.field(repr=False)


def link(inputs: AcpiInputs) -> Linked:
    """Make blobs and script of a machine's tables. Raises ConfigError as ``build_acpi`` does."""
    placed = build_acpi(inputs)
    rsdp = bytearray(next(data for gpa, data in placed if gpa == RSDP_GPA))
    rest = [(gpa, data) for gpa, data in placed if gpa != RSDP_GPA]
    base = min(gpa for gpa, _ in rest) // ALIGNMENT * ALIGNMENT
    tables = bytearray(max(gpa + len(data) for gpa, data in rest) - base)
    script = [
        ALLOCATE.pack(1, TABLES.encode(), ALIGNMENT, ZONE_HIGH),
        ALLOCATE.pack(1, RSDP.encode(), 16, ZONE_LOW),
    ]
    for gpa, data in rest:
        at = gpa - base
        tables[at : at + len(data)] = data
        pointers = [(at + offset, size) for offset, size in _pointers(data)]
        script += _relocate(tables, TABLES, pointers, base)
        if pointers:
            script.append(_checksum(tables, TABLES, at + 9, at, len(data)))
    script += _relocate(rsdp, RSDP, RSDP_POINTERS, base)
    script += [_checksum(rsdp, RSDP, 8, 0, 20), _checksum(rsdp, RSDP, 32, 0, len(rsdp))]
    return Linked(tables=bytes(tables), rsdp=bytes(rsdp), script=b"".join(c.ljust(COMMAND_SIZE, b"\0") for c in script))


def _pointers(table: bytes) -> list[tuple[int, int]]:
    signature = table[:4]
    if signature == b"FACP":
        return list(FADT_POINTERS)
    size = {b"RSDT": 4, b"XSDT": 8}.get(signature)
    return [] if size is None else [(offset, size) for offset in range(HEADER, len(table), size)]


def _relocate(blob: bytearray, name: str, pointers: Iterable[tuple[int, int]], base: int) -> list[bytes]:
    """Make addresses offsets in TABLES, to which its address is added."""
    commands = []
    for offset, size in pointers:
        address = int.from_bytes(blob[offset : offset + size], "little")
        blob[offset : offset + size] = (address - base).to_bytes(size, "little")
        commands.append(ADD_POINTER.pack(2, name.encode(), TABLES.encode(), offset, size))
    return commands


def _checksum(blob: bytearray, name: str, offset: int, start: int, length: int) -> bytes:
    blob[offset] = 0
    return ADD_CHECKSUM.pack(3, name.encode(), offset, start, length)
