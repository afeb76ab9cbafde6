"""ACPI's fixed tables as bytes: RSDP, RSDT, XSDT, MADT, FADT, FACS, MCFG.

Source: ACPI 6.0 (the FADT is revision 6, 276 bytes), sections 5.2.5 ... 5.2.12; MCFG: PCI Firmware 3.2, section 4.1.2.
"""

import struct
from collections.abc import Sequence

from acrn_dm.base import address_map as layout
from acrn_dm.boot.acpi.inputs import AcpiInputs

_OEM_ID = b"ACRN  "
_CREATOR = b"ACDM"
_OEM_REVISION = _CREATOR_REVISION = 1

# FADT: IA-PC boot architecture flags. The keyboard controller's bit stays 0: there is nothing plugged in.
_LEGACY_DEVICES, _NO_VGA, _NO_CMOS_RTC = 1 << 0, 1 << 2, 1 << 5
# FADT: fixed feature flags. The power button is a fixed one: its bit stays 0.
_WBINVD, _C1_SUPPORTED, _NO_SLEEP_BUTTON = 1 << 0, 1 << 2, 1 << 5
_RTC_NOT_FIXED, _TIMER_IS_32_BITS, _RESET_SUPPORTED = 1 << 6, 1 << 8, 1 << 10

_NO_GAS = bytes(12)
_ACCESS_BYTE, _ACCESS_WORD, _ACCESS_DWORD = 1, 2, 3


def checksum(data: bytes | bytearray) -> int:
    """Return the byte that makes *data*, where it now holds 0, sum up to 0."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Put the standard 36-byte header before *body* (5.2.6)."""
    header = struct.pack(
        "<4sIBB6s8sI4sI",
        signature,
        36 + len(body),
        revision,
        0,
        _OEM_ID,
        b"ACRN" + signature,
        _OEM_REVISION,
        _CREATOR,
        _CREATOR_REVISION,
    )
    data = bytearray(header + body)
    data[9] = checksum(data)
    return bytes(data)


def rsdp(rsdt: int, xsdt: int) -> bytes:
    """Encode the root pointer, revision 2; the guest finds it by scanning 16-byte boundaries (5.2.5.3)."""
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM_ID, 2, rsdt, 36, xsdt, 0))
    data[8] = checksum(data[:20])
    data[32] = checksum(data)
    return bytes(data)


def rsdt(addresses: Sequence[int]) -> bytes:
    """Encode the table of 32-bit table addresses."""
    return table(b"RSDT", 1, struct.pack(f"<{len(addresses)}I", *addresses))


def xsdt(addresses: Sequence[int]) -> bytes:
    """Encode the table of 64-bit table addresses."""
    return table(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses))


def madt(inputs: AcpiInputs) -> bytes:
    """Encode the interrupt controllers: local APICs, one IOAPIC, what differs from the ISA defaults, NMI on LINT1."""
    entries = [struct.pack("<II", layout.LAPIC_BASE, 1)]  # PCAT_COMPAT: there are 8259s
    entries += [_local_apic(uid, apic_id) for uid, apic_id in enumerate(inputs.apic_ids)]
    entries.append(struct.pack("<BBBBII", 1, 12, 0, 0, layout.IOAPIC_BASE, 0))  # id 0, its pin 0 is GSI 0
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, 0, layout.PIT_GSI, 0x0))  # as the ISA bus has it
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, layout.SCI_IRQ, layout.SCI_IRQ, 0xD))  # level, active high
    entries.append(struct.pack("<BBBHB", 4, 6, 0xFF, 0x0, 1))  # all processors
    return table(b"APIC", 4, b"".join(entries))


def _local_apic(uid: int, apic_id: int) -> bytes:
    if apic_id < 0xFF and uid < 0xFF:
        return struct.pack("<BBBBI", 0, 8, uid, apic_id, 1)
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, 1, uid)  # x2APIC: ids above 8 bits (5.2.12.12)


def _io_register(port: int | None, size: int, access: int) -> bytes:
    """Encode a generic address of *size* bytes of ports (5.2.3.1)."""
    if port is None:
        return _NO_GAS
    return struct.pack("<BBBBQ", 1, 8 * size, 0, access, port)


def fadt(inputs: AcpiInputs, facs_gpa: int, dsdt_gpa: int) -> bytes:
    """Encode the fixed hardware: PM1 registers, SCI, SMI command port, reset register, flags (5.2.9)."""
    timer = inputs.pm_timer_port
    body = _fadt_legacy(inputs, facs_gpa, dsdt_gpa)
    body += _io_register(layout.RESET_CONTROL, 1, _ACCESS_BYTE) + bytes([layout.RESET_FULL]) + bytes(3)
    # X_FIRMWARE_CTRL stays 0: exactly one of the two FACS pointers may be set (5.2.9).
    body += struct.pack("<QQ", 0, dsdt_gpa)
    body += _io_register(layout.PM1A_EVENT, 4, _ACCESS_WORD) + _NO_GAS
    body += _io_register(layout.PM1A_CONTROL, 2, _ACCESS_WORD) + _NO_GAS
    body += _NO_GAS + _io_register(timer, 4, _ACCESS_DWORD)
    body += 4 * _NO_GAS  # no general purpose events, no sleep registers (hardware-reduced machines have those)
    return table(b"FACP", 6, body + struct.pack("<8s", b"ACRN"))  # hypervisor vendor identity


def _fadt_legacy(inputs: AcpiInputs, facs_gpa: int, dsdt_gpa: int) -> bytes:
    """Encode the fields up to the reset register: the part ACPI 1.0 has, with 32-bit addresses."""
    timer = inputs.pm_timer_port
    profile_desktop = 1
    pointers = struct.pack("<IIBBH", facs_gpa, dsdt_gpa, 0, profile_desktop, layout.SCI_IRQ)
    smi = struct.pack("<IBBBB", layout.SMI_COMMAND, layout.ACPI_ENABLE, layout.ACPI_DISABLE, 0, 0)
    blocks = struct.pack("<8I", layout.PM1A_EVENT, 0, layout.PM1A_CONTROL, 0, 0, timer or 0, 0, 0)
    lengths = struct.pack("<8B", 4, 2, 0, 0 if timer is None else 4, 0, 0, 0, 0)
    no_c2, no_c3 = 101, 1001  # latencies in us past which the states don't exist
    caches = struct.pack("<HHHHBB", no_c2, no_c3, 0, 0, 0, 0)
    century = layout.RTC_CENTURY if inputs.rtc else 0
    rtc = struct.pack("<BBBHx", 0, 0, century, _boot_architecture(inputs))
    return pointers + smi + blocks + lengths + caches + rtc + struct.pack("<I", _feature_flags(inputs))


def _boot_architecture(inputs: AcpiInputs) -> int:
    flags = _NO_VGA
    if inputs.uarts:
        flags |= _LEGACY_DEVICES
    if not inputs.rtc:
        flags |= _NO_CMOS_RTC
    return flags


def _feature_flags(inputs: AcpiInputs) -> int:
    flags = _WBINVD | _C1_SUPPORTED | _NO_SLEEP_BUTTON | _RESET_SUPPORTED
    if not inputs.s3:
        flags |= _RTC_NOT_FIXED  # else the alarm has a bit among the fixed events, with which it can end a sleep
    return flags if inputs.pm_timer_port is None else flags | _TIMER_IS_32_BITS


def facs() -> bytes:
    """Encode the firmware control structure: no header checksum, 64 bytes, 64-byte aligned (5.2.10)."""
    return struct.pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 2)


def mcfg(inputs: AcpiInputs) -> bytes:
    """Encode the ECAM window of segment 0, from bus 0 to the last bus that exists."""
    return table(b"MCFG", 1, struct.pack("<8xQHBB4x", inputs.ecam_base, 0, 0, inputs.last_bus))
