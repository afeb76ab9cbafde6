"""The data area and the calls of a BIOS, for a guest that is entered without firmware.

Kernels look there before they know better: for the end of low memory (Xen puts its trampoline below it), for the serial
ports, and in real mode for the BIOS itself. So the data area is true, and every BIOS call returns: the two that only
report the data area do so, the others say that they do not exist. The layout is IBM's (Technical Reference PC AT, 1985,
section 5; Ralf Brown's Interrupt List, MEMORY.LST).
"""

import struct
from collections.abc import Sequence

from acrn_dm.base import address_map as layout
from acrn_dm.boot.image import BootImage, Piece

LOW_MEMORY_KIB = layout.LEGACY_HOLE_BASE // layout.KIB
KEYBOARD_BUFFER, KEYBOARD_BUFFER_END = 0x1E, 0x3E  # offsets in the data area

# Offsets in the data area. 0x0E is the segment of an extended one; it stays 0: there is none.
_SERIAL_PORTS, _EQUIPMENT, _MEMORY_SIZE, _KEYBOARD_POINTERS, _KEYBOARD_LIMITS = 0x00, 0x10, 0x13, 0x1A, 0x80
_HAS_FPU, _SERIAL_COUNT_SHIFT = 1 << 1, 9

_VECTORS = 256
_SERVICES = range(0x10, 0x1B)
_GET_EQUIPMENT, _GET_MEMORY_SIZE = 0x11, 0x12
# Real-mode code.
_RETURN = b"\xcf"  # iret
_REFUSE = (  # push bp; mov bp, sp; or word [bp+6], CF|ZF; pop bp; mov ah, 0x86 (no such function); iret
    b"\x55\x89\xe5\x83\x4e\x06\x41\x5d\xb4\x86\xcf"
)


def add(image: BootImage, uarts: Sequence[tuple[str, int, int]]) -> BootImage:
    """Return *image* with the area of a machine that has *uarts*, unless it uses that memory itself."""
    handlers, vectors = _calls()
    area = [
        Piece(name="BIOS data area", gpa=0, data=vectors + _data_area(uarts)),
        Piece(name="BIOS calls", gpa=layout.BIOS_CALLS, data=handlers),
    ]
    return image.with_unless_taken(area)


def _data_area(uarts: Sequence[tuple[str, int, int]]) -> bytes:
    area = bytearray(layout.BIOS_DATA_END - layout.BIOS_DATA_AREA)
    ports = {name: base for name, base, _ in uarts}
    serial = [ports.get(f"COM{number}", 0) for number in range(1, 5)]
    struct.pack_into("<4H", area, _SERIAL_PORTS, *serial)
    count = sum(base != 0 for base in serial)
    struct.pack_into("<H", area, _EQUIPMENT, _HAS_FPU | count << _SERIAL_COUNT_SHIFT)
    struct.pack_into("<H", area, _MEMORY_SIZE, LOW_MEMORY_KIB)
    struct.pack_into("<HH", area, _KEYBOARD_POINTERS, KEYBOARD_BUFFER, KEYBOARD_BUFFER)  # empty
    struct.pack_into("<HH", area, _KEYBOARD_LIMITS, KEYBOARD_BUFFER, KEYBOARD_BUFFER_END)
    return bytes(area)


def _calls() -> tuple[bytes, bytes]:
    """The handlers' code, and the interrupt vectors that lead there."""
    code = bytearray()

    def handler(instructions: bytes) -> int:
        code.extend(instructions)
        return layout.BIOS_CALLS - layout.BIOS_SEGMENT + len(code) - len(instructions)

    nothing = handler(_RETURN)
    refuse = handler(_REFUSE)
    special = {_GET_EQUIPMENT: handler(_load_ax(_EQUIPMENT)), _GET_MEMORY_SIZE: handler(_load_ax(_MEMORY_SIZE))}
    offsets = [special.get(i, refuse if i in _SERVICES else nothing) for i in range(_VECTORS)]
    segment = layout.BIOS_SEGMENT >> 4
    return bytes(code), b"".join(struct.pack("<HH", offset, segment) for offset in offsets)


def _load_ax(field: int) -> bytes:
    """push ds; xor ax, ax; mov ds, ax; mov ax, [field]; pop ds; iret"""
    return b"\x1e\x31\xc0\x8e\xd8\xa1" + struct.pack("<H", layout.BIOS_DATA_AREA + field) + b"\x1f\xcf"
