"""Kernels entered through their PVH note."""

import struct

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.image import BootImage, Piece
from tests.boot.samples import MIB, PT_LOAD, PT_NOTE, RSDP, make_elf, make_vmlinux, note, prepare_elf, setup


def piece(image: BootImage, name: str) -> Piece:
    return next(p for p in image.pieces if p.name == name)


def start_info(image: BootImage) -> tuple[int, ...]:
    return struct.unpack("<IIIIQQQQII", piece(image, "start info").data)


def test_entry_is_the_notes_address_and_rbx_the_start_info() -> None:
    image = prepare_elf(make_vmlinux(entry=0x100_0040), setup())
    assert image.registers.rip == 0x100_0040
    assert image.registers.rbx == piece(image, "start info").gpa
    assert image.registers.cr0 & 0x8000_0001 == 1  # protected mode, no paging


def test_entry_state_is_flat() -> None:
    image = prepare_elf(make_vmlinux(), setup())
    registers, table = image.registers, piece(image, "GDT")
    assert (registers.code.selector, registers.code.access) == (0x08, 0xC09B)
    assert (registers.data.selector, registers.data.access) == (0x10, 0xC093)
    assert (registers.gdt_base, registers.gdt_limit) == (table.gpa, 23)
    assert struct.unpack("<3Q", table.data) == (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)


def test_segment_goes_to_its_physical_address_with_cleared_bss() -> None:
    segment = piece(prepare_elf(make_vmlinux(), setup()), "kernel segment")
    assert (segment.gpa, bytes(segment.data), segment.cleared) == (0x100_0000, b"K" * 256, 0x3000 - 256)


def test_start_info_points_at_command_line_memory_map_and_rsdp() -> None:
    image = prepare_elf(make_vmlinux(), setup())
    magic, version, flags, modules, module_list, line, rsdp, memory_map, entries, _ = start_info(image)
    assert (magic, version, flags, rsdp) == (0x336EC578, 1, 0, RSDP)
    assert (modules, module_list) == (0, 0)
    assert (line, piece(image, "command line").data) == (piece(image, "command line").gpa, b"console=ttyS0\0")
    assert (memory_map, entries) == (piece(image, "memory map").gpa, 3)
    assert struct.unpack_from("<QQII", piece(image, "memory map").data, 24) == (MIB, 255 * MIB, 1, 0)


def test_ramdisk_is_the_one_module() -> None:
    image = prepare_elf(make_vmlinux(), setup(ramdisk=b"r" * 5000))
    assert start_info(image)[3:5] == (1, piece(image, "module list").gpa)
    assert struct.unpack("<4Q", piece(image, "module list").data) == (256 * MIB - 8192, 5000, 0, 0)
    assert piece(image, "ramdisk").gpa == 256 * MIB - 8192


def test_everything_the_entry_code_reads_lies_in_the_first_gib() -> None:
    image = prepare_elf(make_vmlinux(), setup(4096 * MIB, ramdisk=b"r"))
    early = ("GDT", "start info", "module list", "memory map", "command line")
    assert all(piece(image, name).end <= 1 << 30 for name in early)


def test_kernel_without_note_is_refused() -> None:
    with pytest.raises(ConfigError, match="no PVH entry note"):
        prepare_elf(make_vmlinux(note_data=note(b"GNU\0", 18, bytes(8))), setup())


def test_note_of_odd_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 bytes"):
        prepare_elf(make_vmlinux(note_data=note(b"Xen\0", 18, b"12")), setup())


def test_entry_outside_the_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="outside the loaded segments"):
        prepare_elf(make_vmlinux(entry=0x200_0000), setup())


def test_kernel_outside_ram_blames_its_file() -> None:
    data = note(b"Xen\0", 18, struct.pack("<I", 0x9000_0000))
    image = make_elf(64, [(PT_LOAD, 0x9000_0000, b"x", 1), (PT_NOTE, 0, data, len(data))])
    guest = setup()
    with pytest.raises(ConfigError, match=r"^-k: .*does not fit into the guest's memory"):
        prepare_elf(image, guest).check(guest.ranges)


def test_ramdisk_over_the_kernel_blames_the_ramdisk() -> None:
    with pytest.raises(ConfigError, match=r"^-r: .*does not fit between"):
        prepare_elf(make_vmlinux(), setup(128 * MIB, ramdisk=bytes(120 * MIB)))
