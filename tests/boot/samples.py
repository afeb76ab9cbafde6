"""Small boot images made field by field, and a memory that remembers what was written."""

import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from acrn_dm.boot import bzimage, elf, loader
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.files import ImageFile
from acrn_dm.boot.image import BootImage, GuestSetup
from acrn_dm.memory.guest_memory import MemoryRange, guest_ranges
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import debian_kernel

MIB = 1 << 20
RSDP = 0xF2400
PT_LOAD, PT_NOTE = 1, 4
ACPI = AcpiInputs(apic_ids=(0,))


class RecordedMemory:
    """Guest RAM that keeps writes in order, and reads them back."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        self.writes.append((gpa, bytes(data)))

    def read(self, gpa: int, length: int) -> bytes:
        found = bytearray(length)
        for start, data in self.writes:
            low, high = max(start, gpa), min(start + len(data), gpa + length)
            if low < high:
                found[low - gpa : high - gpa] = data[low - start : high - start]
        return bytes(found)


def image_file(data: bytes, option: str = "-k") -> ImageFile:
    """An ImageFile without a file."""
    return ImageFile(option=option, path=Path("image.bin"), data=data)


def setup(size: int = 256 * MIB, ramdisk: bytes | None = None, bootargs: str = "console=ttyS0") -> GuestSetup:
    """The other half of a loader's input."""
    file = None if ramdisk is None else image_file(ramdisk, "-r")
    return GuestSetup(ranges=guest_ranges(size), ramdisk=file, bootargs=bootargs, rsdp=RSDP)


def plan(size: int = 256 * MIB, **changes: object) -> loader.BootPlan:
    """A BootPlan of one vCPU."""
    ranges: Sequence[MemoryRange] = guest_ranges(size)
    return loader.BootPlan(memory_ranges=ranges, acpi=ACPI, **changes)  # type: ignore[arg-type]


def make_bzimage(
    *,
    setup_sectors: int = 4,
    protocol: int = 0x020F,
    loadflags: int = 1,
    initrd_addr_max: int = 0x7FFF_FFFF,
    alignment: int = 2 * MIB,
    relocatable: int = 1,
    code32_start: int = MIB,
    cmdline_size: int = 2047,
    pref_address: int = 16 * MIB,
    init_size: int = 8 * MIB,
    body: bytes = b"\xf4" * 4096,
) -> bytes:
    """A bzImage with just a setup header and *body* as its protected-mode part."""
    data = bytearray(((setup_sectors or 4) + 1) * 512)
    data[0x1F1] = setup_sectors
    struct.pack_into("<HBB4sH", data, 0x1FE, 0xAA55, 0xEB, 0x6A, b"HdrS", protocol)
    data[0x211] = loadflags
    struct.pack_into("<I", data, 0x214, code32_start)
    struct.pack_into("<IIB", data, 0x22C, initrd_addr_max, alignment, relocatable)
    struct.pack_into("<I", data, 0x238, cmdline_size)
    struct.pack_into("<QI", data, 0x258, pref_address, init_size)
    return bytes(data) + body


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    """One ELF note with 4-byte padding."""

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    return struct.pack("<III", len(owner), len(description), kind) + padded(owner) + padded(description)


def make_elf(
    bits: int,
    parts: Sequence[tuple[int, int, bytes, int]],
    *,
    entry: int = 0x10_0000,
    kind: int = 2,
    machine: int | None = None,
    virtual_offset: int = 0,
) -> bytes:
    """An ELF file of *parts*: (program header type, physical address, contents, memory size)."""
    header_size, entry_size = (52, 32) if bits == 32 else (64, 56)
    machine = machine if machine is not None else (3 if bits == 32 else 62)
    ident = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<HHIIIIIHHHHHH" if bits == 32 else "<HHIQQQIHHHHHH",
        *(kind, machine, 1, entry, header_size, 0, 0, header_size, entry_size, len(parts), 0, 0, 0),
    )
    offset = header_size + entry_size * len(parts)
    table, contents = b"", b""
    for type_, paddr, data, size in parts:
        vaddr = paddr + virtual_offset
        if bits == 32:
            table += struct.pack("<8I", type_, offset, vaddr, paddr, len(data), size, 7, 4)
        else:
            table += struct.pack("<IIQQQQQQ", type_, 7, offset, vaddr, paddr, len(data), size, 4)
        offset += len(data)
        contents += data
    return ident + header + table + contents


def make_vmlinux(entry: int = 0x100_0040, note_data: bytes | None = None) -> bytes:
    """A 64-bit kernel of one segment, with a PVH note."""
    if note_data is None:
        note_data = note(b"Xen\0", 6, b"linux\0") + note(b"Xen\0", 18, struct.pack("<Q", entry))
    parts = [(PT_LOAD, 0x100_0000, b"K" * 256, 0x3000), (PT_NOTE, 0, note_data, len(note_data))]
    return make_elf(64, parts, entry=0x100_0000, virtual_offset=0xFFFF_FFFF_8000_0000)


def make_multiboot(flags: int = 2, header: bool = True) -> bytes:
    """A 32-bit image of one segment at 1 MiB, with a multiboot header."""
    magic = 0x1BAD_B002
    text = struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFF_FFFF) if header else b""
    return make_elf(32, [(PT_LOAD, 0x10_0000, text + b"\xf4" * 64, 0x2000)])


def prepare_elf(data: bytes, guest: GuestSetup, option: str = "-k") -> BootImage:
    """Parse and lay out an ELF image as the loader does, 32-bit ones as multiboot."""
    file = image_file(data, option)
    parsed = elf.parse(file)
    return loader._elf_image(file, parsed, guest, as_kernel=option == "-k" and parsed.bits == 64)


def prepare_bzimage(data: bytes, guest: GuestSetup) -> BootImage:
    """Lay out a bzImage as the loader does."""
    return bzimage.prepare(image_file(data), guest)


def lab_kernel() -> Path | None:
    """The stock kernel of the lab, fetched on first use; None where it is not to be had."""
    try:
        return debian_kernel().image
    except HarnessUnavailable:
        return None


def make_firmware(size: int = 256 << 10, *, for_qemu: bool = True, fill: bytes = b"\xf4") -> bytes:
    """A firmware image: *fill*, and at the end what says that it is made for QEMU."""
    end = (UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le if for_qemu else bytes(16)) + bytes(16)
    end += b"\xeb\xfe".ljust(16, b"\x90")  # at the reset vector: a jump to itself
    return fill * (size - len(end)) + end
