"""Flat 32-bit protected mode without paging: how bzImage, PVH and multiboot kernels are all entered."""

import struct

from acrn_dm.contract.registers import BootRegisters, Segment

# Descriptors with base 0 and limit 4 GiB: execute/read and read/write, accessed, ring 0, 32 bits.
_CODE = 0x00CF_9B00_0000_FFFF
_DATA = 0x00CF_9300_0000_FFFF


def gdt(code_selector: int) -> bytes:
    """Encode a descriptor table with the code segment at *code_selector* and the data segment behind it."""
    nulls = code_selector // 8
    return struct.pack(f"<{nulls}QQQ", *([0] * nulls), _CODE, _DATA)


def registers(code_selector: int, entry: int, gdt_gpa: int, **general: int) -> BootRegisters:
    """Return the state in which a kernel is entered at *entry*, with that table at *gdt_gpa* and these *general*
    registers.
    """
    return BootRegisters(
        rip=entry,
        code=Segment(selector=code_selector, access=0xC09B),
        data=Segment(selector=code_selector + 8, access=0xC093),
        gdt_base=gdt_gpa,
        gdt_limit=len(gdt(code_selector)) - 1,
        **general,
    )
