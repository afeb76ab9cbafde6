"""Parser for ELF executables: the segments to load and the notes about how to enter them.

Source: System V ABI, chapters 4 and 5. The file is the user's, but may come from anywhere: every offset is checked.
"""

import struct
from collections.abc import Iterator

import attrs

from acrn_dm.base.records import frozen
from acrn_dm.boot.files import ImageFile
from acrn_dm.boot.image import ELF_MAGIC, Piece

_LITTLE_ENDIAN = 1
_EXECUTABLE = 2
_MACHINES = {32: 3, 64: 62}  # EM_386, EM_X86_64
_PT_LOAD, _PT_NOTE = 1, 4
_MAX_PROGRAM_HEADERS = 64  # Linux has 5
_MAX_NOTES = 256


@frozen(kw_only=True, eq=False)
class LoadSegment:
    """*data* of the file, then zeros up to *memory_size*, at *paddr* (or *vaddr*, where the boot protocol says so)."""

    vaddr: int = attrs.field(repr=hex)
    paddr: int = attrs.field(repr=hex)
    data: memoryview = attrs.field(repr=False)
    memory_size: int


@frozen(kw_only=True)
class Note:
    """A PT_NOTE entry; *owner* is without its NUL."""

    owner: bytes
    type: int
    description: bytes


@frozen(kw_only=True, eq=False)
class ElfImage:
    """An executable for x86, of *bits* 32 or 64."""

    bits: int
    entry: int = attrs.field(repr=hex)
    segments: tuple[LoadSegment, ...]
    notes: tuple[Note, ...]


@frozen(kw_only=True)
class _ProgramHeader:
    """An entry of the program header table, of either class."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    file_size: int
    memory_size: int
    alignment: int


def parse(image: ImageFile) -> ElfImage:
    """Parse an executable for x86. Raises ConfigError."""
    if image.data[:4] != ELF_MAGIC:
        raise image.error("not an ELF image")
    bits = {1: 32, 2: 64}.get(image.unpack("B", 4, "ELF header")[0])
    if bits is None or image.unpack("B", 5, "ELF header")[0] != _LITTLE_ENDIAN:
        raise image.error("neither 32-bit nor 64-bit little-endian ELF")
    kind, machine, _version, entry, table = image.unpack("HHIII" if bits == 32 else "HHIQQ", 16, "ELF header")
    if kind != _EXECUTABLE or machine != _MACHINES[bits]:
        raise image.error(f"ELF type {kind} for machine {machine}; an x86 executable is needed")
    entry_size, count = image.unpack("HH", 42 if bits == 32 else 54, "ELF header")
    if entry_size != (32 if bits == 32 else 56) or not 1 <= count <= _MAX_PROGRAM_HEADERS:
        raise image.error(f"{count} ELF program headers of {entry_size} bytes; 1 to {_MAX_PROGRAM_HEADERS} are allowed")
    headers = [_program_header(image, bits, table + i * entry_size) for i in range(count)]
    segments = tuple(_load_segment(image, h) for h in headers if h.type == _PT_LOAD and h.memory_size > 0)
    if not segments:
        raise image.error("the ELF image has nothing to load")
    notes = tuple(note for h in headers if h.type == _PT_NOTE for note in _notes(image, h))
    return ElfImage(bits=bits, entry=entry, segments=segments, notes=notes)


def kernel_segment(image: ImageFile, segment: LoadSegment, gpa: int) -> Piece:
    """Return *segment* as a piece at *gpa*, its bss cleared."""
    bss = segment.memory_size - len(segment.data)
    return Piece(name="kernel segment", gpa=gpa, data=segment.data, cleared=bss, file=image)


def _program_header(image: ImageFile, bits: int, offset: int) -> _ProgramHeader:
    if bits == 32:
        kind, start, vaddr, paddr, filesz, memsz, _, align = image.unpack("8I", offset, "program headers")
    else:
        kind, _, start, vaddr, paddr, filesz, memsz, align = image.unpack("IIQQQQQQ", offset, "program headers")
    return _ProgramHeader(
        type=kind, offset=start, vaddr=vaddr, paddr=paddr, file_size=filesz, memory_size=memsz, alignment=align
    )


def _contents(image: ImageFile, header: _ProgramHeader) -> memoryview:
    end = header.offset + header.file_size
    if end > len(image.data):
        raise image.error(f"the file ends before its segment at {header.offset:#x}+{header.file_size:#x}")
    return memoryview(image.data)[header.offset : end]


def _load_segment(image: ImageFile, header: _ProgramHeader) -> LoadSegment:
    if header.file_size > header.memory_size:
        raise image.error(f"the segment at {header.offset:#x} is larger in the file than in memory")
    return LoadSegment(
        vaddr=header.vaddr, paddr=header.paddr, data=_contents(image, header), memory_size=header.memory_size
    )


def _notes(image: ImageFile, header: _ProgramHeader) -> Iterator[Note]:
    """Walk the notes of a segment: u32 owner size, description size and type, then both, each padded."""
    data = bytes(_contents(image, header))
    padding = 8 if header.alignment == 8 else 4
    offset = 0
    for _ in range(_MAX_NOTES):
        if offset + 12 > len(data):
            return
        owner_size, description_size, kind = struct.unpack_from("<III", data, offset)
        owner_at = offset + 12
        description_at = -(-(owner_at + owner_size) // padding) * padding
        offset = -(-(description_at + description_size) // padding) * padding
        if description_at + description_size > len(data):
            raise image.error("a note of the ELF image passes the end of its segment")
        owner = data[owner_at : owner_at + owner_size].rstrip(b"\0")
        yield Note(owner=owner, type=kind, description=data[description_at : description_at + description_size])
