"""SMBIOS structures as bytes. Source: DMTF DSP0134 3.3.0, section 7, which has them by their type."""

import struct
from collections.abc import Sequence

from acrn_dm.base.address_map import BIOS_SEGMENT, KIB, MIB
from acrn_dm.boot.smbios.identity import MANUFACTURER, PRODUCT, Identity
from acrn_dm.memory.guest_memory import MemoryRange

HEADER = struct.Struct("<BBH")  # type, length without the strings, handle
BIOS, SYSTEM, BOARD, CHASSIS, PROCESSOR, MEMORY_ARRAY, MEMORY_DEVICE, MAPPED_ADDRESS = 0, 1, 2, 3, 4, 16, 17, 19
BOOT_INFORMATION, END = 32, 127

# Linux takes a BIOS before 2001 for one whose ACPI, and before 2008 for one whose PCI windows can't be trusted.
_RELEASE_DATE = "01/01/2026"
_NONE, _OTHER, _UNKNOWN = 0, 1, 2  # no string; values of most enumerations
_SAFE = 3
_NO_HANDLE = 0xFFFF
_NOT_PROVIDED = 0xFFFE  # a memory error's handle
_VIRTUAL_MACHINE, _ACPI = 1 << 4, 1 << 0
_NO_CHARACTERISTICS = 1 << 3
_POWER_SWITCH = 6
_HOSTING_BOARD, _MOTHERBOARD = 1 << 0, 10
_CENTRAL, _POPULATED_AND_ENABLED = 3, 0x41
_64_BIT, _MULTI_CORE = 1 << 2, 1 << 3
_SYSTEM_MEMORY, _NO_ECC = 3, 3
_DIMM, _RAM = 9, 7
_USE_EXTENDED_SIZE, _USE_EXTENDED_ADDRESS, _USE_EXTENDED_CAPACITY = 0x7FFF, 0xFFFF_FFFF, 0x8000_0000


def handle(kind: int, index: int = 0) -> int:
    """The handle of the structure of that type and number."""
    return kind << 8 | index


def structure(kind: int, body: bytes, *strings: str, index: int = 0) -> bytes:
    """Put the header before *body* and the strings, numbered from 1, behind it (6.1.2, 6.1.3)."""
    header = HEADER.pack(kind, HEADER.size + len(body), handle(kind, index))
    text = b"".join(string.encode("ascii", "replace") + b"\0" for string in strings)
    return header + body + (text or b"\0") + b"\0"


def bios(identity: Identity) -> bytes:
    """Type 0, for a machine without firmware of its own."""
    body = struct.pack("<BBHBBQ", 1, 2, BIOS_SEGMENT >> 4, 3, 0, _NO_CHARACTERISTICS)
    body += struct.pack("<BBBBBB", _ACPI, _VIRTUAL_MACHINE, 0xFF, 0xFF, 0xFF, 0xFF)  # 0xFF: no release numbers
    return structure(BIOS, body, PRODUCT, identity.version, _RELEASE_DATE)


def system(identity: Identity) -> bytes:
    """Type 1: the machine. The UUID's first three fields are little-endian (7.2.1)."""
    body = struct.pack("<BBBB16sBBB", 1, 2, 3, 4, identity.uuid.bytes_le, _POWER_SWITCH, _NONE, _NONE)
    return structure(SYSTEM, body, MANUFACTURER, PRODUCT, identity.version, identity.name)


def board(identity: Identity) -> bytes:
    """Type 2."""
    body = struct.pack("<BBBBBB", 1, 2, 3, _NONE, _NONE, _HOSTING_BOARD)
    body += struct.pack("<BHBB", _NONE, handle(CHASSIS), _MOTHERBOARD, 0)
    return structure(BOARD, body, MANUFACTURER, PRODUCT, identity.version)


def chassis(identity: Identity) -> bytes:
    """Type 3."""
    body = struct.pack("<BBBBB", 1, _OTHER, 2, _NONE, 3)
    body += struct.pack("<BBBBIBBBBB", _SAFE, _SAFE, _SAFE, _UNKNOWN, 0, 0, 0, 0, 0, _NONE)
    return structure(CHASSIS, body, MANUFACTURER, identity.version, identity.name)


def processor(cores: int) -> bytes:
    """Type 4: one package, with a core a vCPU as CPUID says."""
    body = struct.pack("<BBBBQBBHHHBB", 1, _CENTRAL, _OTHER, 2, 0, _NONE, 0, 0, 0, 0, _POPULATED_AND_ENABLED, _OTHER)
    body += struct.pack("<HHHBBB", _NO_HANDLE, _NO_HANDLE, _NO_HANDLE, _NONE, _NONE, _NONE)  # caches; three strings
    small = min(cores, 0xFF)
    characteristics = _64_BIT | (_MULTI_CORE if cores > 1 else 0)
    body += struct.pack("<BBBHHHHH", small, small, small, characteristics, _OTHER, cores, cores, cores)
    return structure(PROCESSOR, body, "CPU 0", MANUFACTURER)


def memory(ranges: Sequence[MemoryRange]) -> list[bytes]:
    """Types 16, 17 and 19: one module, mapped where the guest's RAM is."""
    size = sum(r.size for r in ranges)
    kib, mib = size // KIB, size // MIB
    capacity = kib if kib < _USE_EXTENDED_CAPACITY else _USE_EXTENDED_CAPACITY
    array = struct.pack("<BBBIHHQ", _OTHER, _SYSTEM_MEMORY, _NO_ECC, capacity, _NOT_PROVIDED, 1, size)
    short = mib if mib < _USE_EXTENDED_SIZE else _USE_EXTENDED_SIZE
    device = struct.pack("<HHHHHBB", handle(MEMORY_ARRAY), _NOT_PROVIDED, 0xFFFF, 0xFFFF, short, _DIMM, 0)
    device += struct.pack("<BBBHHBBBBBIH", 1, _NONE, _RAM, 1 << 1, 0, 2, _NONE, _NONE, _NONE, 0, mib, 0)
    device += struct.pack("<HHH", 0, 0, 0)  # voltages
    return [
        structure(MEMORY_ARRAY, array),
        structure(MEMORY_DEVICE, device, "DIMM 0", MANUFACTURER),
        *(structure(MAPPED_ADDRESS, _mapped(r), index=i) for i, r in enumerate(ranges)),
    ]


def _mapped(r: MemoryRange) -> bytes:
    first, last = r.gpa // KIB, (r.gpa + r.size) // KIB - 1
    if last < _USE_EXTENDED_ADDRESS:
        return struct.pack("<IIHBQQ", first, last, handle(MEMORY_ARRAY), 1, 0, 0)
    everything = _USE_EXTENDED_ADDRESS
    return struct.pack("<IIHBQQ", everything, everything, handle(MEMORY_ARRAY), 1, r.gpa, r.gpa + r.size - 1)


def boot_information() -> bytes:
    """Type 32: no error was found."""
    return structure(BOOT_INFORMATION, bytes(7))


def end_of_table() -> bytes:
    """Type 127."""
    return structure(END, b"")
