"""Runs what a loader made on QEMU's q35 board in software emulation, without any other firmware than 200 bytes of ours.

QEMU's loader devices put the pieces into RAM. The ACPI tables can't go there (q35 shows ROM below 1 MiB until firmware
changes that), so they lie at their places inside the ROM image. The ROM code moves q35's registers to where our tables
say they are (ECAM, PM block), takes the boot processor to the entry state and jumps.
"""

import select
import struct
import subprocess
import time
from pathlib import Path

from acrn_dm.boot.image import BootImage
from acrn_dm.contract.registers import BootRegisters

ROM_BASE = 0xF_0000
ROM_SIZE = 0x1_0000
CODE32 = 0xF_F000
CODE16 = 0xF_F800
GDT_POINTER = 0xF_F900
LIMIT_S = 120
PCI_ADDRESS, PCI_DATA, SMI_COMMAND = 0xCF8, 0xCFC, 0xB2


def _out32(port: int, value: int) -> bytes:
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb8" + struct.pack("<I", value) + b"\xef"  # mov dx; mov eax; out


def _out8(port: int, value: int) -> bytes:
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes([value]) + b"\xee"


def _pci_write(function: int, register: int, value: int) -> bytes:
    return _out32(PCI_ADDRESS, 0x8000_0000 | function << 8 | register) + _out32(PCI_DATA, value)


def _code32(registers: BootRegisters) -> bytes:
    memory_controller, lpc = 0x00, 0xF8
    code = b"\x66\xb8" + struct.pack("<H", registers.data.selector)
    code += b"\x8e\xd8\x8e\xc0\x8e\xd0\x8e\xe0\x8e\xe8"  # mov ds, es, ss, fs, gs
    code += _pci_write(memory_controller, 0x64, 0) + _pci_write(memory_controller, 0x60, 0xE000_0001)  # ECAM
    code += _pci_write(lpc, 0x40, 0x401) + _pci_write(lpc, 0x44, 0x80)  # PM block at 0x400, on; SCI is IRQ 9
    code += _pci_write(lpc, 0x60, 0x8080_8080) + _pci_write(lpc, 0x68, 0x8080_8080)  # INTx to the IOAPIC only
    code += _out8(SMI_COMMAND, 2)  # q35's own value for "ACPI on"
    for opcode, value in ((0xBB, registers.rbx), (0xBE, registers.rsi), (0xBC, registers.rsp), (0xB8, registers.rax)):
        code += bytes([opcode]) + struct.pack("<I", value)
    code += b"\x31\xc9\x31\xd2\x31\xff\x31\xed"  # ecx, edx, edi, ebp = 0
    return code + b"\xea" + struct.pack("<IH", registers.rip, registers.code.selector)  # far jump


def _code16(code_selector: int) -> bytes:
    code = b"\xfa\x2e\x66\x0f\x01\x16" + struct.pack("<H", GDT_POINTER - ROM_BASE)  # cli; lgdt cs:[pointer]
    code += b"\x66\xb8\x31\x00\x00\x00\x0f\x22\xc0"  # mov eax, 0x31; mov cr0, eax
    return code + b"\x66\xea" + struct.pack("<IH", CODE32, code_selector)


def make_rom(image: BootImage) -> bytes:
    """ROM image: the pieces that lie below 1 MiB in its area, the code, the reset vector."""
    rom = bytearray(ROM_SIZE)
    registers = image.registers
    pointer = struct.pack("<HI", registers.gdt_limit, registers.gdt_base)
    parts = [(p.gpa, bytes(p.data)) for p in image.pieces if ROM_BASE <= p.gpa < ROM_BASE + ROM_SIZE]
    parts += [
        (CODE32, _code32(registers)),
        (CODE16, _code16(registers.code.selector)),
        (GDT_POINTER, pointer),
        (0xF_FFF0, b"\xe9" + struct.pack("<h", CODE16 - 0xF_FFF3)),
    ]
    for gpa, data in parts:
        rom[gpa - ROM_BASE : gpa - ROM_BASE + len(data)] = data
    return bytes(rom)


def run(
    image: BootImage,
    folder: Path,
    *,
    memory_mib: int,
    cpus: int,
    devices: tuple[str, ...] = (),
    until: str | None = None,
) -> str:
    """Boot *image* until it resets, or has written *until* to COM1; return what it wrote there. A boot that hangs two
    minutes is tried once more.
    """
    (folder / "rom").write_bytes(make_rom(image))
    command = [
        *("qemu-system-x86_64", "-M", "q35,accel=tcg", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-m", str(memory_mib), "-smp", str(cpus), "-bios", str(folder / "rom")),
    ]
    for i, piece in enumerate(image.pieces):
        if len(piece.data) and not ROM_BASE <= piece.gpa < ROM_BASE + ROM_SIZE:
            path = folder / f"piece{i}"
            path.write_bytes(piece.data)
            command += ["-device", f"loader,file={path},addr={piece.gpa:#x},force-raw=on"]
    command += ["-chardev", "null,id=none"]
    for device in devices:
        command += ["-device", device]
    try:
        return _output(command, until)
    except subprocess.TimeoutExpired:  # software emulation hangs early in one boot of twenty
        return _output(command, until)


def _output(command: list[str], until: str | None) -> str:
    deadline = time.monotonic() + LIMIT_S
    written = bytearray()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdout is not None
        try:
            while until is None or until.encode() not in written:
                left = deadline - time.monotonic()
                if not select.select([process.stdout], [], [], max(0, left))[0]:
                    raise subprocess.TimeoutExpired(command, LIMIT_S, bytes(written))
                if not (data := process.stdout.read(65536)):
                    break
                written += data
        finally:
            process.kill()
    return written.decode(errors="replace")
