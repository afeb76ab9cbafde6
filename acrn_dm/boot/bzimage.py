"""Linux bzImage through its 32-bit boot protocol.

Source: Linux Documentation/arch/x86/boot.rst and zero-page.rst. Addresses are the original device model's: the whole
file at 16 MiB, the zero page in the last page of low memory, the command line below it, then ramdisk and GDT. Of a
kernel that is not relocatable the protected-mode code lies where its header says; nothing else of the file is loaded.
"""

import struct

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.records import frozen
from acrn_dm.boot import command_line, e820, flat
from acrn_dm.boot.files import ImageFile
from acrn_dm.boot.image import PAGE, BootImage, GuestSetup, Piece

HEADER_MAGIC = b"HdrS"
MAGIC_OFFSET = 0x202

_SECTOR = 512
_HEADER_START = 0x1F1
_HEADER_LIMIT = 0x290  # the zero page has its EDD area from here on
_MIN_PROTOCOL = 0x0206  # from here on the header says how long the command line may be
_PROTOCOL_WITH_INIT_SIZE = 0x020A
_PROTOCOL_WITH_RSDP = 0x020E
_LOADED_HIGH = 0x01  # loadflags: protected-mode code belongs above 1 MiB, i.e. a bzImage and no zImage
_QUIET = 0x20  # loadflags: no messages from the decompressor
_UNREGISTERED_LOADER = 0xFF
_E820_ENTRIES = 128  # what the zero page's table holds
_GDT_ROOM = 2 * layout.KIB
_CODE_SELECTOR = 0x10  # __BOOT_CS; __BOOT_DS is 0x18


@frozen(kw_only=True)
class SetupHeader:
    """The fields of the setup header that decide how the kernel is loaded."""

    protocol: int = attrs.field(repr=hex)
    end: int = attrs.field(repr=hex)  # file offset behind the header
    setup_sectors: int
    code32_start: int = attrs.field(repr=hex)
    initrd_addr_max: int = attrs.field(repr=hex)
    cmdline_size: int
    relocatable: bool
    alignment: int = attrs.field(repr=hex)
    pref_address: int = attrs.field(repr=hex)
    init_size: int = attrs.field(repr=hex)

    @property
    def setup_size(self) -> int:
        """Bytes of boot sector and setup, in front of the protected-mode code."""
        return (self.setup_sectors + 1) * _SECTOR

    @property
    def entry(self) -> int:
        """Address of the 32-bit entry point, the first byte of the protected-mode code."""
        if self.relocatable:
            return layout.KERNEL_BASE + self.setup_size
        return self.pref_address or self.code32_start  # pref_address: from protocol 2.10 on

    @property
    def needed_end(self) -> int:
        """First address behind the memory in which the kernel unpacks itself."""
        if not self.relocatable:
            return self.entry + self.init_size
        aligned = -(-self.entry // self.alignment) * self.alignment
        return max(aligned, self.pref_address) + self.init_size


def parse_header(kernel: ImageFile) -> SetupHeader:
    """Read and check the setup header. Raises ConfigError."""
    protocol = _protocol(kernel)
    setup_sectors, *_ = kernel.unpack("B", _HEADER_START, "setup header")
    header_length, *_ = kernel.unpack("B", 0x201, "setup header")
    code32_start, *_ = kernel.unpack("I", 0x214, "setup header")
    initrd_addr_max, alignment, relocatable = kernel.unpack("IIB", 0x22C, "setup header")
    cmdline_size, *_ = kernel.unpack("I", 0x238, "setup header")
    pref_address, init_size = 0, 0
    if protocol >= _PROTOCOL_WITH_INIT_SIZE:
        pref_address, init_size = kernel.unpack("QI", 0x258, "setup header")
    if relocatable and (alignment == 0 or alignment & (alignment - 1)):
        raise kernel.error(f"kernel_alignment {alignment:#x} in the setup header is no power of two")
    header = SetupHeader(
        protocol=protocol,
        end=min(MAGIC_OFFSET + header_length, _HEADER_LIMIT),
        setup_sectors=setup_sectors or 4,  # 0 means 4, from before the field existed
        code32_start=code32_start,
        initrd_addr_max=initrd_addr_max,
        cmdline_size=cmdline_size,
        relocatable=bool(relocatable),
        alignment=alignment,
        pref_address=pref_address,
        init_size=init_size,
    )
    if header.setup_size >= len(kernel.data):
        raise kernel.error("the file ends inside its setup code")
    return header


def _protocol(kernel: ImageFile) -> int:
    """The version of the boot protocol. Raises ConfigError for what is no bzImage of one that is new enough."""
    if kernel.data[MAGIC_OFFSET : MAGIC_OFFSET + 4] != HEADER_MAGIC:
        raise kernel.error("not a bzImage: there is no Linux setup header")
    protocol: int = kernel.unpack("H", 0x206, "setup header")[0]
    if protocol < _MIN_PROTOCOL:
        raise kernel.error(f"boot protocol {protocol >> 8}.{protocol & 0xFF:02}; at least 2.06 is needed")
    if not kernel.unpack("B", 0x211, "setup header")[0] & _LOADED_HIGH:
        raise kernel.error("a zImage, which loads below 1 MiB; a bzImage is needed")
    return protocol


def _kernel_piece(kernel: ImageFile, header: SetupHeader, room_end: int) -> Piece:
    """The kernel where it lies, with the room that it needs, which ends at *room_end*. Raises ConfigError."""
    if header.entry < layout.LEGACY_HOLE_END:
        raise kernel.error(f"a kernel that is not relocatable and wants {header.entry:#x}; it must lie above 1 MiB")
    gpa, data = layout.KERNEL_BASE, memoryview(kernel.data)
    if not header.relocatable:
        gpa, data = header.entry, data[header.setup_size :]
    room = max(len(data), header.needed_end - gpa)
    end = gpa + room
    if end > room_end:
        raise kernel.error(
            f"the kernel unpacks itself up to {end:#x}, but low memory has room up to {room_end:#x}: "
            "give the guest more memory (-m)"
        )
    return Piece(name="kernel", gpa=gpa, data=data, room=room, file=kernel)


def prepare(kernel: ImageFile, setup: GuestSetup) -> BootImage:
    """Lay out kernel, ramdisk, command line, zero page and GDT. Raises ConfigError that names what does not fit."""
    header = parse_header(kernel)
    line = command_line.encode(setup.bootargs, header.cmdline_size)
    zero_page_gpa, line_gpa = setup.low_memory_end - PAGE, setup.low_memory_end - 2 * PAGE
    code = _kernel_piece(kernel, header, line_gpa - _GDT_ROOM)
    ceiling = line_gpa if setup.ramdisk is None else min(line_gpa, header.initrd_addr_max + 1)
    ramdisk_gpa = setup.place_ramdisk(ceiling, code.end + _GDT_ROOM)
    gdt_gpa = ramdisk_gpa - _GDT_ROOM
    pieces = [
        code,
        Piece(name="GDT", gpa=gdt_gpa, data=flat.gdt(_CODE_SELECTOR)),
        Piece(name="command line", gpa=line_gpa, data=line),
    ]
    ramdisk_place = (0, 0)
    if setup.ramdisk is not None:
        ramdisk_place = (ramdisk_gpa, len(setup.ramdisk.data))
        pieces.append(Piece(name="ramdisk", gpa=ramdisk_gpa, data=setup.ramdisk.data, file=setup.ramdisk))
    zero_page = _zero_page(kernel, header, setup, ramdisk_place, line_gpa)
    pieces.append(Piece(name="zero page", gpa=zero_page_gpa, data=zero_page))
    registers = flat.registers(_CODE_SELECTOR, header.entry, gdt_gpa, rsi=zero_page_gpa)
    return BootImage(pieces=tuple(pieces), registers=registers)


def _zero_page(
    kernel: ImageFile, header: SetupHeader, setup: GuestSetup, ramdisk: tuple[int, int], line_gpa: int
) -> bytes:
    """Encode struct boot_params: the file's setup header, what a loader fills in, all else 0."""
    page = bytearray(PAGE)
    page[_HEADER_START : header.end] = kernel.data[_HEADER_START : header.end]
    page[0x210] = _UNREGISTERED_LOADER
    page[0x211] |= _QUIET
    struct.pack_into("<II", page, 0x218, *ramdisk)
    struct.pack_into("<I", page, 0x228, line_gpa)
    if header.protocol >= _PROTOCOL_WITH_RSDP:
        struct.pack_into("<Q", page, 0x070, setup.rsdp)
    entries = e820.memory_map(setup.ranges)[:_E820_ENTRIES]
    page[0x1E8] = len(entries)
    table = e820.pack(entries)
    page[0x2D0 : 0x2D0 + len(table)] = table
    return bytes(page)
