"""Uncompressed ELF kernels with a PVH entry: Linux's vmlinux, and other kernels with the same note.

Source: Xen's docs/misc/pvh.pandoc and include/public/arch-x86/hvm/start_info.h.
"""

import struct

from acrn_dm.base import address_map as layout
from acrn_dm.boot import command_line, e820, flat
from acrn_dm.boot.elf import ElfImage, kernel_segment
from acrn_dm.boot.files import ImageFile
from acrn_dm.boot.image import BootImage, GuestSetup, Piece

_OWNER = b"Xen"
_PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_START_MAGIC = 0x336E_C578
_VERSION = 1  # from here on there is a memory map
_CODE_SELECTOR = 0x08


def entry_point(kernel: ImageFile, elf: ElfImage) -> int | None:
    """Return the physical address of the 32-bit entry, None without the note. Raises ConfigError."""
    for note in elf.notes:
        if note.owner == _OWNER and note.type == _PHYS32_ENTRY:
            if len(note.description) not in (4, 8):
                raise kernel.error(f"the PVH note has {len(note.description)} bytes; 4 or 8 are allowed")
            return int.from_bytes(note.description, "little")
    return None


def prepare(kernel: ImageFile, elf: ElfImage, entry: int, setup: GuestSetup) -> BootImage:
    """Lay out segments, ramdisk and start info, to be entered at *entry*. Raises ConfigError."""
    if not any(s.paddr <= entry < s.paddr + s.memory_size for s in elf.segments):
        raise kernel.error(f"the PVH entry {entry:#x} lies outside the loaded segments")
    entries = e820.memory_map(setup.ranges)
    modules = b""
    pieces = [kernel_segment(kernel, s, s.paddr) for s in elf.segments]
    if setup.ramdisk is not None:
        kernel_end = max(s.paddr + s.memory_size for s in elf.segments)
        ramdisk_gpa = setup.place_ramdisk(setup.low_memory_end, kernel_end)
        pieces.append(Piece(name="ramdisk", gpa=ramdisk_gpa, data=setup.ramdisk.data, file=setup.ramdisk))
        modules = struct.pack("<QQQQ", ramdisk_gpa, len(setup.ramdisk.data), 0, 0)
    memory_map = b"".join(struct.pack("<QQII", e.base, e.size, e.type, 0) for e in entries)
    start_info = _start_info(modules, len(entries), setup.rsdp)
    pieces += [
        Piece(name="GDT", gpa=layout.PVH_GDT, data=flat.gdt(_CODE_SELECTOR)),
        Piece(name="start info", gpa=layout.PVH_START_INFO, data=start_info),
        Piece(name="module list", gpa=layout.PVH_MODULE_LIST, data=modules),
        Piece(name="memory map", gpa=layout.PVH_MEMORY_MAP, data=memory_map),
        Piece(name="command line", gpa=layout.PVH_COMMAND_LINE, data=command_line.encode(setup.bootargs)),
    ]
    registers = flat.registers(_CODE_SELECTOR, entry, layout.PVH_GDT, rbx=layout.PVH_START_INFO)
    return BootImage(pieces=tuple(pieces), registers=registers)


def _start_info(modules: bytes, map_entries: int, rsdp: int) -> bytes:
    """Encode struct hvm_start_info."""
    module_list = layout.PVH_MODULE_LIST if modules else 0
    return struct.pack(
        "<IIIIQQQQII",
        _START_MAGIC,
        _VERSION,
        0,  # flags: no privileged domain
        1 if modules else 0,
        module_list,
        layout.PVH_COMMAND_LINE,
        rsdp,
        layout.PVH_MEMORY_MAP,
        map_entries,
        0,
    )
