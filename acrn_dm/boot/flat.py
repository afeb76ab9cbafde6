"""Flat 32-bit protected mode without paging: how bzImage, PVH and multiboot kernels are all entered."""

import struct

from acrn_dm.contract.registers import Segment

# Descriptors with base 0 and limit 4 GiB: execute/read and read/write, accessed, ring 0, 32 bits.
_CODE = 0x00CF_9B00_0000_FFFF
_DATA = 0x00CF_9300_0000_FFFF


def gdt(code_selector: int) -> bytes:
    """Encode a descriptor table with the code segment at *code_selector* and the data segment behind it."""
    nulls = code_selector // 8
    return struct.pack(f"<{nulls}QQQ", *([0] * nulls), _CODE, _DATA)


def code_segment(code_selector: int) -> Segment:
    """Return CS for that table."""
    return Segment(selector=code_selector, access=0xC09B)


def data_segment(code_selector: int) -> Segment:
    """Return the data segments for that table."""
    return Segment(selector=code_selector + 8, access=0xC093)
