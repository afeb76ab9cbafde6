"""The MP table, decoded with field tables written from the specification (1.4, chapter 4)."""

import struct
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.boot import loader
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.bios.mp_table import build_mp
from acrn_dm.contract.config import Firmware
from tests.boot.samples import PT_LOAD, make_bzimage, make_elf, make_firmware, make_vmlinux, plan

MACHINE = AcpiInputs(apic_ids=(0, 2, 4), prt=((3, 0, 16), (3, 1, 17), (5, 0, 11)), last_bus=1)
SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}
ISA_BUS = 2


def parts(inputs: AcpiInputs = MACHINE) -> tuple[bytes, bytes]:
    (_, root), (_, table) = build_mp(inputs)
    return root, table


def entries(kind: int, inputs: AcpiInputs = MACHINE) -> list[bytes]:
    return [entry for entry in walk(parts(inputs)[1]) if entry[0] == kind]


def walk(table: bytes) -> Iterator[bytes]:
    offset = 44
    while offset < len(table):
        size = SIZES[table[offset]]
        yield table[offset : offset + size]
        offset += size
    assert offset == len(table)


def test_root_is_where_a_search_of_the_bios_segment_begins_and_leads_to_the_table() -> None:
    (gpa, root), (table_gpa, table) = build_mp(MACHINE)
    assert gpa == 0xF0000
    assert (root[:4], len(root), root[8], root[9], sum(root) & 0xFF) == (b"_MP_", 16, 1, 4, 0)
    assert struct.unpack_from("<I", root, 4) == (table_gpa,)
    assert (table[:4], sum(table) & 0xFF) == (b"PCMP", 0)


def test_root_says_that_there_is_a_table_and_no_pic_mode() -> None:
    assert parts()[0][11:] == bytes(5)


def test_header_counts_bytes_and_entries_and_names_the_local_apic() -> None:
    _, table = parts()
    assert struct.unpack_from("<H", table, 4) == (len(table),)
    assert struct.unpack_from("<HI", table, 34) == (len(list(walk(table))), 0xFEE00000)


def test_entries_are_sorted_by_type() -> None:
    kinds = [entry[0] for entry in walk(parts()[1])]
    assert kinds == sorted(kinds)
    assert set(kinds) == set(SIZES)


def test_processors_are_enabled_and_the_first_one_boots() -> None:
    assert [(entry[1], entry[3]) for entry in entries(0)] == [(0, 3), (2, 1), (4, 1)]


def test_each_pci_bus_has_its_number_and_isa_the_next() -> None:
    assert [(entry[1], entry[2:]) for entry in entries(1)] == [(0, b"PCI   "), (1, b"PCI   "), (2, b"ISA   ")]


def test_ioapic_is_that_of_the_madt() -> None:
    assert [(e[1], e[3], *struct.unpack_from("<I", e, 4)) for e in entries(2)] == [(0, 1, 0xFEC00000)]


def test_pci_interrupts_are_low_and_level_at_their_pins() -> None:
    found = [struct.unpack("<xBHBBBB", entry) for entry in entries(3) if entry[4] == 0]
    assert found == [(0, 0xF, 0, 12, 0, 16), (0, 0xF, 0, 13, 0, 17), (0, 0xF, 0, 20, 0, 11)]


def test_isa_interrupts_are_as_in_the_madt_and_leave_pins_of_pci_alone() -> None:
    found = {entry[5]: (struct.unpack_from("<H", entry, 2)[0], entry[7]) for entry in entries(3) if entry[4] == ISA_BUS}
    assert found[0] == (0, 2)
    assert found[9] == (0xD, 9)
    assert found[4] == (0, 4)
    assert set(found) == set(range(16)) - {2, 11}


def test_local_pins_are_extint_and_nmi_of_all_processors() -> None:
    assert [(entry[1], entry[6], entry[7]) for entry in entries(4)] == [(3, 0xFF, 0), (1, 0xFF, 1)]


@pytest.mark.parametrize(
    "changes",
    [{"apic_ids": (0, 255)}, {"last_bus": 255}, {"apic_ids": tuple(range(250))}],
    ids=["apic-id", "bus", "room"],
)
def test_machine_that_the_table_cannot_express_has_none(changes: dict[str, object]) -> None:
    assert build_mp(attrs.evolve(MACHINE, **changes)) == ()


@pytest.mark.parametrize("make", [make_bzimage, make_vmlinux], ids=["bzImage", "PVH"])
def test_guest_without_firmware_has_it_in_memory(make: object, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(make())  # type: ignore[operator]
    pieces = loader.prepare(plan(kernel=tmp_path / "kernel")).pieces
    assert [(p.gpa, bytes(p.data[:4])) for p in pieces if p.name == "MP table"] == [
        (0xF0000, b"_MP_"),
        (0xF0010, b"PCMP"),
    ]


def test_firmware_makes_its_own(tmp_path: Path) -> None:
    (tmp_path / "firmware").write_bytes(make_firmware())
    pieces = loader.prepare(plan(firmware=Firmware(image=tmp_path / "firmware"))).pieces
    assert "MP table" not in [piece.name for piece in pieces]


def test_image_that_uses_that_memory_itself_goes_without(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(make_elf(32, [(PT_LOAD, 0xF0800, b"x", 0x100)], entry=0xF0800))
    names = [piece.name for piece in loader.prepare(plan(elf=tmp_path / "kernel")).pieces]
    assert "MP table" in names  # beside it
    (tmp_path / "other").write_bytes(make_elf(32, [(PT_LOAD, 0xF0008, b"x", 0x100)], entry=0xF0008))
    names = [piece.name for piece in loader.prepare(plan(elf=tmp_path / "other")).pieces]
    assert "MP table" not in names
