"""ELF images by ``-E``: 32-bit ones with or without a multiboot header, 64-bit ones with it.

Source: Multiboot Specification 0.6.96, sections 3.1.1, 3.2 and 3.3. As in the original, segments of 32-bit images go to
their virtual addresses (which such images link equal to the physical ones) and the entry is the ELF file's. The
specification has no 64-bit images; they are loaded as GRUB does it: to their physical addresses, and entered in
32-bit mode all the same.

The command line is the user's alone: a kernel that takes its first word for its own name (Xen) needs one there.
"""

import struct
from collections.abc import Sequence

from acrn_dm.base import address_map as layout
from acrn_dm.boot import command_line, e820, flat
from acrn_dm.boot.elf import ElfImage, LoadSegment, kernel_segment
from acrn_dm.boot.files import ImageFile
from acrn_dm.boot.image import BootImage, GuestSetup, Piece
from acrn_dm.memory.guest_memory import MemoryRange

_HEADER_MAGIC = 0x1BAD_B002
_LOADER_MAGIC = 0x2BAD_B002
_HEADER_AREA = 8192
_PAGE_ALIGNED_MODULES, _MEMORY_INFO = 1 << 0, 1 << 1
_MANDATORY = 0xFFFF  # a loader refuses what it doesn't know among these
_ADDRESS_FIELDS = 1 << 16
_RESERVED_TOP = 64 * layout.KIB  # end of low memory: the GDT, not reported as usable
_CODE_SELECTOR = 0x08

# Flags of the information structure: which of its fields are valid.
_HAS_MEMORY, _HAS_COMMAND_LINE, _HAS_MODULES, _HAS_MAP = 1 << 0, 1 << 2, 1 << 3, 1 << 6


def header_flags(image: ImageFile) -> int | None:
    """What the image's multiboot header asks for; None without one."""
    area = image.data[:_HEADER_AREA]
    for offset in range(0, len(area) - 11, 4):
        magic, flags, check = struct.unpack_from("<III", area, offset)
        if magic == _HEADER_MAGIC and not (magic + flags + check) & 0xFFFF_FFFF:
            return int(flags)
    return None


def check_header(image: ImageFile) -> None:
    """Check what the multiboot header asks for; without one any ELF image is fine. Raises ConfigError."""
    flags = header_flags(image) or 0
    if flags & (_MANDATORY | _ADDRESS_FIELDS) & ~(_PAGE_ALIGNED_MODULES | _MEMORY_INFO):
        raise image.error(f"its multiboot header asks for {flags:#x}; flags 1 and 2 are provided")


def _address(elf: ElfImage, segment: LoadSegment) -> int:
    return segment.vaddr if elf.bits == 32 else segment.paddr


def _entry(image: ImageFile, elf: ElfImage) -> int:
    """Physical address of the entry, which the file tells as a virtual one. Raises ConfigError."""
    for s in elf.segments:
        if s.vaddr <= elf.entry < s.vaddr + s.memory_size:
            return elf.entry - s.vaddr + _address(elf, s)
    raise image.error(f"the entry point {elf.entry:#x} lies outside the loaded segments")


def prepare(image: ImageFile, elf: ElfImage, setup: GuestSetup) -> BootImage:
    """Lay out segments, information structure and GDT; the ramdisk becomes module 0. Raises ConfigError."""
    check_header(image)
    entry = _entry(image, elf)
    usable_end = setup.low_memory_end - _RESERVED_TOP
    modules = b""
    pieces = [kernel_segment(image, s, _address(elf, s)) for s in elf.segments]
    if setup.ramdisk is not None:
        image_end = max(piece.end for piece in pieces)
        ramdisk_gpa = setup.place_ramdisk(usable_end, max(image_end, layout.LEGACY_HOLE_END))
        pieces.append(Piece(name="ramdisk", gpa=ramdisk_gpa, data=setup.ramdisk.data, file=setup.ramdisk))
        modules = struct.pack("<IIII", ramdisk_gpa, ramdisk_gpa + len(setup.ramdisk.data), 0, 0)
    memory_map = _memory_map(setup.ranges)
    pieces += [
        Piece(name="GDT", gpa=usable_end, data=flat.gdt(_CODE_SELECTOR)),
        Piece(name="multiboot information", gpa=layout.MULTIBOOT_INFO, data=_info(modules, memory_map, usable_end)),
        Piece(name="module list", gpa=layout.MULTIBOOT_MODULES, data=modules),
        Piece(name="memory map", gpa=layout.MULTIBOOT_MEMORY_MAP, data=memory_map),
        Piece(name="command line", gpa=layout.MULTIBOOT_COMMAND_LINE, data=command_line.encode(setup.bootargs)),
    ]
    registers = flat.registers(_CODE_SELECTOR, entry, usable_end, rax=_LOADER_MAGIC, rbx=layout.MULTIBOOT_INFO)
    return BootImage(pieces=tuple(pieces), registers=registers)


def _memory_map(ranges: Sequence[MemoryRange]) -> bytes:
    """Encode the map; each entry starts with its size without that field (section 3.3)."""
    return b"".join(struct.pack("<IQQI", 20, e.base, e.size, e.type) for e in e820.memory_map(ranges))


def _info(modules: bytes, memory_map: bytes, usable_end: int) -> bytes:
    """Encode the information structure; sizes in KiB, the upper one counts from 1 MiB."""
    flags = _HAS_MEMORY | _HAS_COMMAND_LINE | _HAS_MAP | (_HAS_MODULES if modules else 0)
    info = bytearray(116)
    lower = layout.LEGACY_HOLE_BASE // layout.KIB
    upper = (usable_end - layout.LEGACY_HOLE_END) // layout.KIB
    struct.pack_into("<III", info, 0, flags, lower, upper)
    struct.pack_into("<I", info, 16, layout.MULTIBOOT_COMMAND_LINE)
    struct.pack_into("<II", info, 20, len(modules) // 16, layout.MULTIBOOT_MODULES if modules else 0)
    struct.pack_into("<II", info, 44, len(memory_map), layout.MULTIBOOT_MEMORY_MAP)
    return bytes(info)
