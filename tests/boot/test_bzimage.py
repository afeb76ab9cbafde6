"""The Linux 32-bit boot protocol; addresses are the original's."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.image import BootImage, Piece
from acrn_dm.memory.guest_memory import guest_ranges
from tests.boot.samples import MIB, RSDP, make_bzimage, prepare_bzimage, setup

LOWMEM = 256 * MIB


def piece(image: BootImage, name: str) -> Piece:
    return next(p for p in image.pieces if p.name == name)


def zero_page(**changes: object) -> bytes:
    return bytes(piece(prepare_bzimage(make_bzimage(), setup(**changes)), "zero page").data)  # type: ignore[arg-type]


def test_whole_file_lies_at_16_mib() -> None:
    data = make_bzimage()
    kernel = piece(prepare_bzimage(data, setup()), "kernel")
    assert (kernel.gpa, bytes(kernel.data)) == (16 * MIB, data)


@pytest.mark.parametrize(("sectors", "effective"), [(4, 4), (27, 27), (0, 4)])
def test_entry_is_behind_boot_sector_and_setup(sectors: int, effective: int) -> None:
    image = prepare_bzimage(make_bzimage(setup_sectors=sectors), setup())
    assert image.registers.rip == 16 * MIB + (effective + 1) * 512


def test_entry_state_is_flat_32_bit_protected_mode() -> None:
    image = prepare_bzimage(make_bzimage(), setup())
    registers, table = image.registers, piece(image, "GDT")
    assert (registers.code.selector, registers.code.access) == (0x10, 0xC09B)
    assert (registers.data.selector, registers.data.access) == (0x18, 0xC093)
    assert (registers.cr0, registers.cr3, registers.cr4, registers.efer) == (0x31, 0, 0, 0)
    assert (registers.gdt_base, registers.gdt_limit) == (table.gpa, 31)
    assert struct.unpack("<4Q", table.data) == (0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    assert registers.rsi == LOWMEM - 4096


def test_top_of_low_memory_is_laid_out_as_in_the_original() -> None:
    image = prepare_bzimage(make_bzimage(), setup(ramdisk=b"r" * 5000))
    assert piece(image, "zero page").gpa == LOWMEM - 4096
    assert piece(image, "command line").gpa == LOWMEM - 8192
    assert piece(image, "ramdisk").gpa == LOWMEM - 16384  # roundup(5000 + 8 KiB, 4 KiB)
    assert piece(image, "GDT").gpa == LOWMEM - 16384 - 2048


def test_command_line_ends_with_nul() -> None:
    assert piece(prepare_bzimage(make_bzimage(), setup()), "command line").data == b"console=ttyS0\0"


def test_zero_page_has_what_a_loader_fills_in() -> None:
    page = zero_page(ramdisk=b"r" * 5000)
    assert len(page) == 4096
    assert page[0x1F1:0x210] == make_bzimage()[0x1F1:0x210]
    assert page[0x210] == 0xFF
    assert page[0x211] == 0x21
    assert struct.unpack_from("<II", page, 0x218) == (LOWMEM - 16384, 5000)
    assert struct.unpack_from("<I", page, 0x228) == (LOWMEM - 8192,)
    assert struct.unpack_from("<Q", page, 0x70) == (RSDP,)
    assert page[0x1E8] == 3
    assert struct.unpack_from("<QQI", page, 0x2D0 + 20) == (MIB, LOWMEM - MIB, 1)


def test_zero_page_is_zero_everywhere_else() -> None:
    page = bytearray(zero_page())
    page[0x70:0x78] = bytes(8)
    page[0x1E8] = 0
    page[0x1F1:0x26C] = bytes(0x26C - 0x1F1)  # the setup header: 0x202 + the byte at 0x201
    page[0x2D0 : 0x2D0 + 60] = bytes(60)
    assert not any(page)


def test_rsdp_is_told_only_to_kernels_that_know_the_field() -> None:
    image = prepare_bzimage(make_bzimage(protocol=0x020D), setup())
    assert bytes(piece(image, "zero page").data[0x70:0x78]) == bytes(8)


def test_without_ramdisk_its_fields_are_0() -> None:
    assert struct.unpack_from("<II", zero_page(), 0x218) == (0, 0)


def test_ramdisk_stays_below_the_kernels_limit() -> None:
    guest = setup(1024 * MIB, ramdisk=b"r" * 5000)
    image = prepare_bzimage(make_bzimage(initrd_addr_max=0x37FF_FFFF), guest)
    assert piece(image, "ramdisk").end <= 0x3800_0000


def test_kernel_that_unpacks_into_the_ramdisk_blames_the_ramdisk() -> None:
    with pytest.raises(ConfigError, match=r"^-r: 'image.bin': .*more memory \(-m\)"):
        prepare_bzimage(make_bzimage(init_size=200 * MIB), setup(ramdisk=bytes(40 * MIB)))


def test_kernel_that_does_not_fit_blames_the_kernel() -> None:
    with pytest.raises(ConfigError, match=r"^-k: 'image.bin': .*unpacks itself up to"):
        prepare_bzimage(make_bzimage(init_size=300 * MIB), setup())


def test_aligned_load_address_counts_for_the_room() -> None:
    # 16 MiB + setup is aligned up to 32 MiB; 224 MiB from there end at the top of memory.
    with pytest.raises(ConfigError, match="unpacks itself up to 0x10000000"):
        prepare_bzimage(make_bzimage(alignment=32 * MIB, init_size=224 * MIB), setup())


def test_command_line_longer_than_the_kernel_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^-B: "):
        prepare_bzimage(make_bzimage(cmdline_size=8), setup())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 0x0205}, r"boot protocol 2\.05; at least 2\.06"),
        ({"loadflags": 0}, "zImage"),
        ({"alignment": 3}, "no power of two"),
        ({"alignment": 0}, "no power of two"),
        ({"body": b""}, "ends inside its setup code"),
    ],
)
def test_bad_header_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_bzimage(make_bzimage(**changes), setup())  # type: ignore[arg-type]


def test_file_without_magic_is_no_bzimage() -> None:
    with pytest.raises(ConfigError, match="not a bzImage"):
        prepare_bzimage(bytes(4096), setup())


@settings(deadline=None)
@given(
    length=st.integers(0, 8192), flips=st.lists(st.tuples(st.integers(0x1F0, 0x280), st.integers(0, 255)), max_size=8)
)
def test_damaged_header_never_does_worse_than_config_error(length: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(make_bzimage()[:length])
    for offset, value in flips:
        if offset < len(data):
            data[offset] = value
    guest = setup(128 * MIB, ramdisk=b"r" * 100)
    try:
        image = prepare_bzimage(bytes(data), guest)
        image.check(guest.ranges)
    except ConfigError:
        return
    assert all(p.gpa >= 0 and p.end <= guest_ranges(128 * MIB)[0].size for p in image.pieces)


@pytest.mark.parametrize(
    ("protocol", "pref_address", "code32_start", "place"),
    [(0x20C, MIB, MIB, MIB), (0x20C, 2 * MIB, MIB, 2 * MIB), (0x209, 2 * MIB, 3 * MIB, 3 * MIB), (0x20C, 0, MIB, MIB)],
    ids=["memtest86+", "preferred", "before-2.10", "no-preference"],
)
def test_code_of_a_kernel_that_is_not_relocatable_lies_where_its_header_says(
    protocol: int, pref_address: int, code32_start: int, place: int
) -> None:
    body = b"\x90" * 4096 + b"\xf4"
    data = make_bzimage(
        relocatable=0,
        protocol=protocol,
        pref_address=pref_address,
        code32_start=code32_start,
        alignment=4096,
        body=body,
    )
    image = prepare_bzimage(data, setup())
    kernel = piece(image, "kernel")
    assert (kernel.gpa, bytes(kernel.data), image.registers.rip) == (place, body, place)


def test_kernel_that_is_not_relocatable_has_the_room_it_unpacks_itself_in() -> None:
    image = prepare_bzimage(make_bzimage(relocatable=0, pref_address=MIB, init_size=8 * MIB), setup())
    assert piece(image, "kernel").end == 9 * MIB


def test_kernel_that_is_not_relocatable_and_has_no_room_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="unpacks itself up to 0x13000000"):
        prepare_bzimage(make_bzimage(relocatable=0, pref_address=256 * MIB, init_size=48 * MIB), setup())


def test_kernel_that_is_not_relocatable_and_belongs_below_1_mib_is_refused() -> None:
    with pytest.raises(ConfigError, match="wants 0x10000; it must lie above 1 MiB"):
        prepare_bzimage(make_bzimage(relocatable=0, pref_address=0x10000), setup())
