"""Tables that firmware places: the script, run as firmware does, gives the tables that we would have placed."""

import struct

import attrs
import pytest

from acrn_dm.boot.acpi.build import RSDP_GPA, build_acpi
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.acpi.linker import RSDP, TABLES, Linked, link

MACHINE = AcpiInputs(apic_ids=(0, 1), prt=((3, 0, 16),), uarts=(("COM1", 0x3F8, 4),), pm_timer_port=0x408)
PLACES = {TABLES: 0x7F00_0000, RSDP: 0xF_0000}


def name(field: bytes) -> str:
    return field.rstrip(b"\0").decode()


def run(linked: Linked) -> dict[str, bytearray]:
    """What firmware has in memory at PLACES when it has followed the script."""
    blobs = {TABLES: bytearray(linked.tables), RSDP: bytearray(linked.rsdp)}
    allocated = []
    assert len(linked.script) % 128 == 0
    for at in range(0, len(linked.script), 128):
        command = linked.script[at : at + 128]
        (kind,) = struct.unpack_from("<I", command)
        if kind == 1:
            file, alignment, zone = struct.unpack_from("<56sIB", command, 4)
            assert PLACES[name(file)] % alignment == 0
            allocated.append((name(file), zone))
        elif kind == 2:
            file, target, offset, size = struct.unpack_from("<56s56sIB", command, 4)
            blob = blobs[name(file)]
            value = int.from_bytes(blob[offset : offset + size], "little") + PLACES[name(target)]
            blob[offset : offset + size] = value.to_bytes(size, "little")
        else:
            assert kind == 3
            file, offset, start, length = struct.unpack_from("<56sIII", command, 4)
            blob = blobs[name(file)]
            blob[offset] = -sum(blob[start : start + length]) & 0xFF
    assert allocated == [(TABLES, 1), (RSDP, 2)]
    return blobs


def at(blobs: dict[str, bytearray], gpa: int, size: int) -> bytes:
    return bytes(blobs[TABLES][gpa - PLACES[TABLES] :][:size])


def table(blobs: dict[str, bytearray], gpa: int) -> bytes:
    (size,) = struct.unpack("<I", at(blobs, gpa + 4, 4))
    return at(blobs, gpa, size)


def pointers(root: bytes, form: str) -> list[int]:
    return [address for (address,) in struct.iter_unpack(form, root[36:])]


def test_root_pointer_leads_to_every_table_and_all_sums_are_right() -> None:
    blobs = run(link(MACHINE))
    rsdp = blobs[RSDP]
    assert sum(rsdp[:20]) & 0xFF == sum(rsdp) & 0xFF == 0
    (rsdt,), (xsdt,) = struct.unpack_from("<I", rsdp, 16), struct.unpack_from("<Q", rsdp, 24)
    found = pointers(table(blobs, xsdt), "<Q")
    assert found == pointers(table(blobs, rsdt), "<I")
    tables = [table(blobs, gpa) for gpa in (rsdt, xsdt, *found)]
    assert {t[:4] for t in tables} >= {b"RSDT", b"XSDT", b"FACP", b"APIC", b"MCFG"}
    assert [sum(t) & 0xFF for t in tables] == [0] * len(tables)


def test_fixed_table_leads_to_facs_and_dsdt() -> None:
    blobs = run(link(MACHINE))
    (xsdt,) = struct.unpack_from("<Q", blobs[RSDP], 24)
    fadt = next(table(blobs, gpa) for gpa in pointers(table(blobs, xsdt), "<Q") if table(blobs, gpa)[:4] == b"FACP")
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert struct.unpack_from("<Q", fadt, 140) == (dsdt,)
    assert at(blobs, facs, 4) == b"FACS"
    assert table(blobs, dsdt) == next(data for _, data in build_acpi(MACHINE) if data[:4] == b"DSDT")


def test_root_pointer_is_not_among_the_tables() -> None:
    rsdp = next(data for gpa, data in build_acpi(MACHINE) if gpa == RSDP_GPA)
    assert rsdp[:8] not in link(MACHINE).tables


@pytest.mark.parametrize("window", [(0xE0_0000_0000, 0xFF_FFFF_FFFF), (0x1_0000_0000, 0x1_3FFF_FFFF)])
def test_tables_of_another_window_are_as_long_and_placed_by_the_same_script(window: tuple[int, int]) -> None:
    first, other = link(MACHINE), link(attrs.evolve(MACHINE, mmio64=window))
    assert len(first.tables) == len(other.tables)
    assert first.tables != other.tables
    assert (first.script, first.rsdp) == (other.script, other.rsdp)
