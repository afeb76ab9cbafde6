"""What kernels find where a BIOS would have left it."""

import struct
from pathlib import Path

import pytest

from acrn_dm.boot import loader
from acrn_dm.boot.bios import area as bios_area
from acrn_dm.boot.image import BootImage, Piece
from acrn_dm.contract.registers import BootRegisters, Segment
from tests.boot.samples import make_bzimage, make_multiboot, make_vmlinux, plan

COM1, COM2, COM5 = ("COM1", 0x3F8, 4), ("COM2", 0x2F8, 3), ("COM5", 0x1000, 5)
REGISTERS = BootRegisters(rip=0, code=Segment(selector=0, access=0), data=Segment(selector=0, access=0))


def area(*uarts: tuple[str, int, int]) -> bytes:
    """Low memory as a guest finds it, with the handlers at their place."""
    memory = bytearray(1 << 20)
    for piece in bios_area.add(BootImage(pieces=(), registers=REGISTERS), uarts).pieces:
        memory[piece.gpa : piece.gpa + len(piece.data)] = piece.data
    return bytes(memory)


def word(memory: bytes, gpa: int) -> int:
    value, *_ = struct.unpack_from("<H", memory, gpa)
    return int(value)


def test_low_memory_ends_at_640_kib_and_there_is_no_extended_area() -> None:
    assert (word(area(), 0x413), word(area(), 0x40E)) == (640, 0)


def test_serial_ports_stand_at_their_numbers_and_are_counted() -> None:
    memory = area(COM2, COM5)
    assert [word(memory, gpa) for gpa in (0x400, 0x402, 0x404, 0x406)] == [0, 0x2F8, 0, 0]
    assert word(memory, 0x410) >> 9 & 7 == 1
    assert word(area(COM1, COM2), 0x410) >> 9 & 7 == 2


def test_keyboard_buffer_is_empty() -> None:
    memory = area()
    assert word(memory, 0x41A) == word(memory, 0x41C) == word(memory, 0x480)


def test_every_interrupt_vector_leads_to_a_handler() -> None:
    memory = area()
    for number in range(256):
        offset, segment = struct.unpack_from("<HH", memory, 4 * number)
        assert memory[segment << 4 | offset] in (0xCF, 0x55, 0x1E)  # iret, or a handler's first push


@pytest.mark.parametrize("make", [make_bzimage, make_vmlinux], ids=["bzImage", "PVH"])
def test_kernels_of_each_kind_have_it(make: object, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(make())  # type: ignore[operator]
    names = [piece.name for piece in loader.prepare(plan(kernel=tmp_path / "kernel")).pieces]
    assert {"BIOS data area", "BIOS calls"} <= set(names)


def test_multiboot_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(make_multiboot())
    assert "BIOS data area" in [piece.name for piece in loader.prepare(plan(elf=tmp_path / "kernel")).pieces]


def test_image_that_uses_that_memory_itself_goes_without() -> None:
    image = BootImage(pieces=(Piece(name="kernel segment", gpa=0x400, data=b"x"),), registers=REGISTERS)
    assert bios_area.add(image, ()) is image
