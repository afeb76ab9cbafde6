"""ACPI resource descriptors: what stands in a device's _CRS.

Source: ACPI 6.3, section 6.4. Each function returns one descriptor, ``template`` joins them into the buffer of a _CRS.
"""

import struct

from acrn_dm.boot.acpi import aml

_END_TAG = b"\x79\x00"  # checksum 0: readers take the template as valid (6.4.2.9)

_MEMORY, _IO, _BUS = 0, 1, 2  # address space descriptor: resource type (6.4.3.5)
_PRODUCER_FIXED = 0x0C  # general flags: minimum and maximum fixed, positive decode, the bridge passes the range on
_ENTIRE_IO_RANGE = 0x03  # type flags: ISA and non-ISA addresses
_READ_WRITE = 0x01  # type flags, not cacheable
_WORD, _DWORD, _QWORD = 0x88, 0x87, 0x8A


def template(*descriptors: bytes) -> bytes:
    """Encode ResourceTemplate () {descriptors}."""
    return aml.buffer(b"".join(descriptors) + _END_TAG)


def io(base: int, length: int) -> bytes:
    """Encode IO (Decode16, base, base, 1, length): fixed ports."""
    if not 0 <= base < 1 << 16 or not 1 <= length <= 255:
        raise ValueError(f"I/O ports {base:#x}+{length}")
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, length)


def irq_no_flags(irq: int) -> bytes:
    """Encode IRQNoFlags () {irq}: an ISA interrupt, edge-triggered, active high."""
    if not 0 <= irq <= 15:
        raise ValueError(f"ISA interrupt {irq}")
    return struct.pack("<BH", 0x22, 1 << irq)


def memory32_fixed(base: int, length: int) -> bytes:
    """Encode Memory32Fixed (ReadWrite, base, length)."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, length)


def generic_register(space: int, bit_width: int, bit_offset: int, access_size: int, address: int) -> bytes:
    """Encode Register (space, width, offset, address, access size), 6.4.3.7."""
    return struct.pack("<BHBBBBQ", 0x82, 12, space, bit_width, bit_offset, access_size, address)


def word_bus_number(first: int, last: int) -> bytes:
    """Encode the bus numbers *first* ... *last* behind a host bridge."""
    return _address_space(_WORD, _BUS, 0, first, last)


def word_io(first: int, last: int) -> bytes:
    """Encode the ports *first* ... *last* that a host bridge passes on."""
    return _address_space(_WORD, _IO, _ENTIRE_IO_RANGE, first, last)


def dword_memory(first: int, last: int) -> bytes:
    """Encode the addresses *first* ... *last* below 4 GiB that a host bridge passes on."""
    return _address_space(_DWORD, _MEMORY, _READ_WRITE, first, last)


def qword_memory(first: int, last: int) -> bytes:
    """Encode the addresses *first* ... *last* that a host bridge passes on."""
    return _address_space(_QWORD, _MEMORY, _READ_WRITE, first, last)


def _address_space(tag: int, kind: int, type_flags: int, first: int, last: int) -> bytes:
    code = {_WORD: "H", _DWORD: "I", _QWORD: "Q"}[tag]
    if not 0 <= first <= last < 1 << (8 * struct.calcsize(code)):
        raise ValueError(f"address range {first:#x}-{last:#x}")
    body = struct.pack(f"<BBB5{code}", kind, _PRODUCER_FIXED, type_flags, 0, first, last, 0, last - first + 1)
    return struct.pack("<BH", tag, len(body)) + body
