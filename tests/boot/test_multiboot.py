"""32-bit ELF images through the multiboot entry."""

import struct

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.image import BootImage, Piece
from tests.boot.samples import MIB, PT_LOAD, make_elf, make_multiboot, prepare_elf, setup

LOWMEM = 256 * MIB


def piece(image: BootImage, name: str) -> Piece:
    return next(p for p in image.pieces if p.name == name)


def info(image: BootImage) -> bytes:
    return bytes(piece(image, "multiboot information").data)


def test_entry_state_is_the_multiboot_one() -> None:
    image = prepare_elf(make_multiboot(), setup())
    registers = image.registers
    assert (registers.rip, registers.rax, registers.rbx) == (0x10_0000, 0x2BADB002, 0x2_0000)
    assert (registers.code.selector, registers.code.access) == (0x08, 0xC09B)
    assert (registers.data.selector, registers.cr0) == (0x10, 0x31)
    assert (registers.gdt_base, registers.gdt_limit) == (LOWMEM - 0x10000, 23)


def test_memory_sizes_are_kib_below_640_and_above_1_mib() -> None:
    image = prepare_elf(make_multiboot(), setup())
    flags, lower, upper = struct.unpack_from("<III", info(image), 0)
    assert flags & 1
    assert lower == 640
    assert MIB + upper * 1024 == LOWMEM - 0x10000


def test_information_has_command_line_and_memory_map() -> None:
    image = prepare_elf(make_multiboot(), setup())
    flags, *_ = struct.unpack_from("<I", info(image), 0)
    assert flags & 0x44 == 0x44
    assert struct.unpack_from("<I", info(image), 16) == (piece(image, "command line").gpa,)
    length, address = struct.unpack_from("<II", info(image), 44)
    memory_map = piece(image, "memory map")
    assert (length, address) == (len(memory_map.data), memory_map.gpa)
    assert struct.unpack_from("<IQQI", memory_map.data, 24) == (20, MIB, LOWMEM - MIB, 1)


def test_ramdisk_becomes_a_page_aligned_module() -> None:
    image = prepare_elf(make_multiboot(flags=3), setup(ramdisk=b"r" * 5000))
    flags, *_ = struct.unpack_from("<I", info(image), 0)
    count, address = struct.unpack_from("<II", info(image), 20)
    start, end = struct.unpack_from("<II", piece(image, "module list").data, 0)
    assert (flags & 8, count, address) == (8, 1, piece(image, "module list").gpa)
    assert (start % 4096, end - start) == (0, 5000)


def test_without_ramdisk_there_is_no_module() -> None:
    assert struct.unpack_from("<II", info(prepare_elf(make_multiboot(), setup())), 20) == (0, 0)


def test_segments_go_to_their_virtual_addresses() -> None:
    data = make_elf(32, [(PT_LOAD, 0x10_0000, b"x", 1)], entry=0x20_0000, virtual_offset=0x10_0000)
    assert piece(prepare_elf(data, setup()), "kernel segment").gpa == 0x20_0000


def test_image_without_header_is_taken() -> None:
    assert prepare_elf(make_multiboot(header=False), setup()).registers.rip == 0x10_0000


@pytest.mark.parametrize("flags", [0x4, 0x10, 0x10002])
def test_header_that_asks_for_more_is_refused(flags: int) -> None:
    with pytest.raises(ConfigError, match=f"asks for {flags:#x}"):
        prepare_elf(make_multiboot(flags), setup(), "-E")


def test_header_with_wrong_checksum_is_no_header() -> None:
    damaged = make_multiboot(4).replace(struct.pack("<II", 0x1BADB002, 4), struct.pack("<II", 0x1BADB002, 5))
    assert prepare_elf(damaged, setup()).registers.rip == 0x10_0000


def test_entry_outside_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="outside the loaded segments"):
        prepare_elf(make_elf(32, [(PT_LOAD, 0x10_0000, b"x", 1)], entry=0x20_0000), setup())


def multiboot64(entry: int = 0x100_0000) -> bytes:
    """As gnumach's for amd64: the boot code at its physical address, the rest linked high."""
    header = struct.pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFF_FFFF)
    return make_elf(64, [(PT_LOAD, 0x100_0000, header + b"\xf4" * 64, 0x2000)], entry=entry)


def test_64_bit_image_with_a_header_is_entered_in_32_bit_mode() -> None:
    registers = prepare_elf(multiboot64(), setup(), "-E").registers
    assert (registers.rip, registers.rax, registers.code.access, registers.efer) == (0x100_0000, 0x2BADB002, 0xC09B, 0)


def test_64_bit_image_lies_at_its_physical_addresses() -> None:
    high = 0xFFFF_FFFF_8000_0000
    header = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFF_FFFF)
    data = make_elf(64, [(PT_LOAD, 0x20_0000, header, 0x1000)], entry=high + 0x20_0010, virtual_offset=high)
    image = prepare_elf(data, setup(), "-E")
    assert (piece(image, "kernel segment").gpa, image.registers.rip) == (0x20_0000, 0x20_0010)
