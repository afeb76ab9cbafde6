"""The whole of SMBIOS: the table of structures and the two entry points that lead to it (DSP0134 3.3.0, 5.2).

Without firmware they lie below 1 MiB, where a guest looks at each 16-byte boundary. Firmware made for QEMU takes table
and 32-bit entry point from the configuration device, and places them itself.
"""

import struct
from collections.abc import Sequence

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.records import frozen
from acrn_dm.boot.acpi.tables import checksum
from acrn_dm.boot.smbios import structures
from acrn_dm.boot.smbios.identity import Identity
from acrn_dm.memory.guest_memory import MemoryRange

ENTRY_64, ENTRY_32, TABLE = layout.SMBIOS_BASE, layout.SMBIOS_BASE + 0x20, layout.SMBIOS_BASE + 0x40
_VERSION_64, _VERSION_32 = (3, 0), (2, 8)


@frozen(kw_only=True)
class Smbios:
    """Bytes of one machine."""

    table: bytes = attrs.field(repr=False)
    entry_64: bytes = attrs.field(repr=False)
    entry_32: bytes = attrs.field(repr=False)

    @property
    def placed(self) -> tuple[tuple[int, bytes], ...]:
        """(gpa, bytes) of each part."""
        return ((ENTRY_64, self.entry_64), (ENTRY_32, self.entry_32), (TABLE, self.table))


def build_smbios(identity: Identity, *, vcpus: int, ranges: Sequence[MemoryRange], firmware: bool) -> Smbios:
    """Make the tables; with *firmware*, which has a BIOS of its own to tell of, all but type 0."""
    parts = [] if firmware else [structures.bios(identity)]
    parts += [structures.system(identity), structures.board(identity), structures.chassis(identity)]
    parts += [structures.processor(vcpus), *structures.memory(ranges), structures.boot_information()]
    parts.append(structures.end_of_table())
    table = b"".join(parts)
    if TABLE + len(table) > layout.SMBIOS_END:
        raise ValueError(f"SMBIOS structures of {len(table)} bytes")
    return Smbios(table=table, entry_64=_entry_64(table), entry_32=_entry_32(table, parts))


def _entry_64(table: bytes) -> bytes:
    entry = bytearray(struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, *_VERSION_64, 0, 1, 0, len(table), TABLE))
    entry[5] = checksum(entry)
    return bytes(entry)


def _entry_32(table: bytes, parts: Sequence[bytes]) -> bytes:
    major, minor = _VERSION_32
    longest = max(len(part) for part in parts)
    intermediate = bytearray(struct.pack("<5sBHIHB", b"_DMI_", 0, len(table), TABLE, len(parts), major << 4 | minor))
    intermediate[5] = checksum(intermediate)
    entry = bytearray(struct.pack("<4sBBBBHB5x", b"_SM_", 0, 31, major, minor, longest, 0) + intermediate)
    entry[4] = checksum(entry)
    return bytes(entry)
