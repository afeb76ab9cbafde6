"""The waking vector: where a guest goes on after a sleep, which its operating system has left in the FACS.

ACPI 6.5, 5.2.10: the 32-bit firmware waking vector, at offset 12, is entered in real mode. The 64-bit one stays unused:
the FACS does not offer it.
"""

import struct

from acrn_dm.base.errors import GuestError
from acrn_dm.boot.acpi.build import build_acpi
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.memory.guest_memory import GuestMemory

WAKING_VECTOR = 12
REAL_MODE_LIMIT = 0xFFFF
REAL_MODE_CR0 = 0x30  # ET and NE
ROOM = 1 << 20  # what real mode reaches


def wake_registers(memory: GuestMemory, acpi: AcpiInputs) -> BootRegisters:
    """Return the entry state. Raises GuestError when the guest has left no usable vector."""
    facs = next(gpa for gpa, data in build_acpi(acpi) if data[:4] == b"FACS")
    (vector,) = struct.unpack("<I", memory.read(facs + WAKING_VECTOR, 4))
    if not 0 < vector < ROOM:
        raise GuestError(f"the guest sleeps with a waking vector of {vector:#x}")
    segment = vector >> 4
    return BootRegisters(
        rip=vector & 0xF,
        code=Segment(selector=segment, base=segment << 4, limit=REAL_MODE_LIMIT, access=0x9F),
        data=Segment(selector=0, limit=REAL_MODE_LIMIT, access=0x93),
        cr0=REAL_MODE_CR0,
        gdt_limit=REAL_MODE_LIMIT,
    )
