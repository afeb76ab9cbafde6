"""The MP table: processors and interrupt routing, for kernels that read no ACPI and as where a search for it ends.

Linux searches for its root on every boot, and where there is none it maps and unmaps the BIOS segment 4,096 times, up
to 17 pages a time: 70,000 TLB invalidations, each an exit below shadow page tables. The original has it, too.

Source: Intel MultiProcessor Specification 1.4, chapter 4.
"""

import struct
from collections.abc import Iterator

from acrn_dm.base import address_map as layout
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.acpi.tables import checksum

ROOT_SIZE, HEADER_SIZE = 16, 44
TABLE = layout.MP_BASE + ROOT_SIZE

_REVISION = 4
_PROCESSOR, _BUS, _IOAPIC, _INTERRUPT, _LOCAL_INTERRUPT = range(5)
_LAPIC_VERSION, _IOAPIC_VERSION, _IOAPIC_ID = 0x14, 0x11, 0
_ENABLED, _BOOT_PROCESSOR = 1 << 0, 1 << 1
_ALL_PROCESSORS = 0xFF
# Of a processor that is not told of otherwise (table 4-6): CPUID says more.
_SIGNATURE, _FPU_AND_APIC = 0xF00, 1 << 9 | 1 << 0
_INT, _NMI, _EXT_INT = 0, 1, 3
_AS_THE_BUS, _LEVEL_HIGH, _LEVEL_LOW = 0x0, 0xD, 0xF
_ISA_IRQS, _CASCADE = 16, 2


def build_mp(inputs: AcpiInputs) -> tuple[tuple[int, bytes], ...]:
    """Return (gpa, bytes) of the root and of the table; nothing of a machine that has more than they can express.

    An APIC id has 8 bits there, and so has the number of a bus, of which the ISA bus takes the one behind PCI's last.
    """
    if max(inputs.apic_ids) >= _ALL_PROCESSORS or inputs.last_bus + 1 >= layout.ECAM_MAX_BUSES:
        return ()
    entries = list(_entries(inputs))
    table = _table(entries)
    if TABLE + len(table) > layout.MP_END:
        return ()
    return ((layout.MP_BASE, _root()), (TABLE, table))


def _root() -> bytes:
    """The floating pointer structure (4.1); features: there is a table, and interrupts begin in virtual wire mode."""
    root = bytearray(struct.pack("<4sIBBB5x", b"_MP_", TABLE, 1, _REVISION, 0))
    root[10] = checksum(root)
    return bytes(root)


def _table(entries: list[bytes]) -> bytes:
    """The header (4.2) and its entries."""
    base = b"".join(entries)
    names = (b"ACRN    ", b"ACRN-DM     ")
    header = struct.pack(
        "<4sHBB8s12sIHHIHBx", b"PCMP", HEADER_SIZE + len(base), _REVISION, 0, *names, 0, 0, len(entries),
        layout.LAPIC_BASE, 0, 0,
    )  # fmt: skip
    table = bytearray(header + base)
    table[7] = checksum(table)
    return bytes(table)


def _entries(inputs: AcpiInputs) -> Iterator[bytes]:
    """All of them, sorted by type as 4.3 asks."""
    isa = inputs.last_bus + 1
    for number, apic_id in enumerate(inputs.apic_ids):
        flags = _ENABLED if number else _ENABLED | _BOOT_PROCESSOR
        yield struct.pack("<BBBBII8x", _PROCESSOR, apic_id, _LAPIC_VERSION, flags, _SIGNATURE, _FPU_AND_APIC)
    for bus in range(isa):
        yield struct.pack("<BB6s", _BUS, bus, b"PCI   ")
    yield struct.pack("<BB6s", _BUS, isa, b"ISA   ")
    yield struct.pack("<BBBBI", _IOAPIC, _IOAPIC_ID, _IOAPIC_VERSION, _ENABLED, layout.IOAPIC_BASE)
    yield from _interrupts(inputs, isa)
    yield _local(_EXT_INT, isa, 0)
    yield _local(_NMI, isa, 1)


def _interrupts(inputs: AcpiInputs, isa: int) -> Iterator[bytes]:
    """What arrives at the IOAPIC (4.3.4): ISA's as in the MADT, where no device of PCI has the pin, then PCI's."""
    of_pci = {gsi for _, _, gsi in inputs.prt}
    for irq in range(_ISA_IRQS):
        pin = layout.PIT_GSI if irq == 0 else irq
        if irq != _CASCADE and pin not in of_pci:
            yield _interrupt(_LEVEL_HIGH if irq == layout.SCI_IRQ else _AS_THE_BUS, isa, irq, pin)
    for slot, intx, gsi in inputs.prt:
        yield _interrupt(_LEVEL_LOW, 0, slot << 2 | intx, gsi)


def _interrupt(flags: int, bus: int, irq: int, pin: int) -> bytes:
    return struct.pack("<BBHBBBB", _INTERRUPT, _INT, flags, bus, irq, _IOAPIC_ID, pin)


def _local(kind: int, bus: int, pin: int) -> bytes:
    """One at a pin of the local APICs (4.3.5)."""
    return struct.pack("<BBHBBBB", _LOCAL_INTERRUPT, kind, _AS_THE_BUS, bus, 0, _ALL_PROCESSORS, pin)
