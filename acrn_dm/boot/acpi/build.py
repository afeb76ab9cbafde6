"""All tables of a machine and where they lie.

Each table keeps the original's address as long as those before it leave room; a bigger one moves the rest up.
"""

from acrn_dm.base import address_map as layout
from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.acpi import tables
from acrn_dm.boot.acpi.dsdt import dsdt_body
from acrn_dm.boot.acpi.inputs import AcpiInputs

RSDP_GPA = layout.ACPI_BASE
_RSDT_GPA = layout.ACPI_BASE + 0x40
_XSDT_GPA = layout.ACPI_BASE + 0x80
_MADT_GPA = layout.ACPI_BASE + 0x100
_FADT_GPA = layout.ACPI_BASE + 0x200
_MCFG_GPA = layout.ACPI_BASE + 0x380
_FACS_GPA = layout.ACPI_BASE + 0x3C0
_DSDT_GPA = layout.ACPI_BASE + 0x1100
_ALIGNMENT = 64  # what the FACS needs; the others don't mind


def build_acpi(inputs: AcpiInputs) -> tuple[tuple[int, bytes], ...]:
    """Return (gpa, bytes) of every table, by address. Raises ConfigError when they pass 1 MiB."""
    madt, mcfg, facs = tables.madt(inputs), tables.mcfg(inputs), tables.facs()
    dsdt = tables.table(b"DSDT", 2, dsdt_body(inputs))  # revision 2: integers have 64 bits
    fadt_size = len(tables.fadt(inputs, 0, 0))

    fadt_gpa = _behind(_MADT_GPA + len(madt), _FADT_GPA)
    mcfg_gpa = _behind(fadt_gpa + fadt_size, _MCFG_GPA)
    facs_gpa = _behind(mcfg_gpa + len(mcfg), _FACS_GPA)
    dsdt_gpa = _behind(facs_gpa + len(facs), _DSDT_GPA)
    if dsdt_gpa + len(dsdt) > layout.ACPI_END:
        raise ConfigError(
            f"the ACPI tables of this machine end at {dsdt_gpa + len(dsdt):#x}, they must end at {layout.ACPI_END:#x}: "
            f"give it fewer than {len(inputs.apic_ids)} vCPUs"
        )
    roots = (fadt_gpa, _MADT_GPA, mcfg_gpa)
    return (
        (RSDP_GPA, tables.rsdp(_RSDT_GPA, _XSDT_GPA)),
        (_RSDT_GPA, tables.rsdt(roots)),
        (_XSDT_GPA, tables.xsdt(roots)),
        (_MADT_GPA, madt),
        (fadt_gpa, tables.fadt(inputs, facs_gpa, dsdt_gpa)),
        (mcfg_gpa, mcfg),
        (facs_gpa, facs),
        (dsdt_gpa, dsdt),
    )


def _behind(end: int, reference: int) -> int:
    """Return *reference*, or the next aligned address when *end* has already passed it."""
    return max(reference, -(-end // _ALIGNMENT) * _ALIGNMENT)
