"""Choosing a loader, checking without memory, writing memory, loading again."""

import lzma
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import bzimage, elf, loader
from acrn_dm.boot.acpi.build import build_acpi
from acrn_dm.memory.guest_memory import GuestMemory, guest_ranges
from tests.boot.samples import (
    ACPI,
    MIB,
    PT_LOAD,
    RecordedMemory,
    image_file,
    lab_kernel,
    make_bzimage,
    make_elf,
    make_multiboot,
    make_vmlinux,
    plan,
)


@pytest.fixture
def file(tmp_path: Path):
    def make(data: bytes, name: str = "image") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


def test_bzimage_as_kernel_boots_by_the_linux_protocol(file) -> None:
    memory = RecordedMemory()
    registers = loader.load(memory, plan(kernel=file(make_bzimage()), bootargs="quiet"))
    assert registers.rsi == 256 * MIB - 4096
    assert memory.read(registers.rip, 4) == b"\xf4" * 4
    assert memory.read(256 * MIB - 8192, 6) == b"quiet\0"


def test_vmlinux_as_kernel_boots_by_pvh(file) -> None:
    registers = loader.load(RecordedMemory(), plan(kernel=file(make_vmlinux())))
    assert (registers.rip, registers.rbx) == (0x100_0040, 0x6000)


def test_vmlinux_as_elf_image_boots_by_pvh(file) -> None:
    assert loader.load(RecordedMemory(), plan(elf=file(make_vmlinux()))).rbx == 0x6000


def test_multiboot_as_elf_image_boots_by_multiboot(file) -> None:
    assert loader.load(RecordedMemory(), plan(elf=file(make_multiboot()))).rax == 0x2BADB002


def test_acpi_tables_are_written(file) -> None:
    memory = RecordedMemory()
    loader.load(memory, plan(kernel=file(make_bzimage())))
    for gpa, data in build_acpi(ACPI):
        assert memory.read(gpa, len(data)) == data


def test_bss_is_cleared_in_used_memory(file) -> None:
    memory = RecordedMemory()
    bss = 3 * MIB + 5
    memory.write(16 * MIB, b"\xff" * (bss + 16))
    data = make_elf(32, [(PT_LOAD, 16 * MIB, b"code", 4 + bss)], entry=16 * MIB)
    loader.load(memory, plan(elf=file(data)))
    assert memory.read(16 * MIB, 4 + bss + 1) == b"code" + bytes(bss) + b"\xff"


def test_load_into_real_guest_memory(file) -> None:
    memory = GuestMemory.allocate(guest_ranges(128 * MIB))
    try:
        data = make_bzimage()
        loader.load(memory, plan(128 * MIB, kernel=file(data), ramdisk=file(b"initrd", "initrd")))
        assert memory.read(16 * MIB, len(data)) == data
        assert memory.read(128 * MIB - 12288, 6) == b"initrd"
    finally:
        memory.close()


def test_second_load_takes_the_file_as_it_then_is(file) -> None:
    path = file(make_bzimage(setup_sectors=4))
    first = loader.load(RecordedMemory(), plan(kernel=path))
    file(make_bzimage(setup_sectors=6))
    second = loader.load(RecordedMemory(), plan(kernel=path))
    assert second.rip - first.rip == 1024


def test_error_at_load_leaves_memory_untouched(file) -> None:
    memory = RecordedMemory()
    with pytest.raises(ConfigError):
        loader.load(memory, plan(kernel=file(make_bzimage()), bootargs="x" * 3000))
    assert memory.writes == []


def test_check_of_a_good_plan_finds_nothing(file) -> None:
    assert loader.check(plan(kernel=file(make_bzimage()))) == []


def test_check_names_every_missing_file(tmp_path: Path) -> None:
    problems = loader.check(plan(kernel=tmp_path / "no-kernel", ramdisk=tmp_path / "no-ramdisk"))
    assert [p.split(":")[0] for p in problems] == ["-k", "-r"]


def test_check_reports_what_load_would_raise(file) -> None:
    (problem,) = loader.check(plan(kernel=file(make_bzimage(protocol=0x0200))))
    assert "boot protocol 2.00" in problem


def test_nothing_to_boot_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to boot"):
        loader.prepare(plan())


def test_kernel_and_elf_image_together_are_refused(file) -> None:
    with pytest.raises(ConfigError, match="not both"):
        loader.prepare(plan(kernel=file(make_bzimage()), elf=file(make_multiboot(), "elf")))


def test_text_file_as_kernel_is_refused(file) -> None:
    with pytest.raises(ConfigError, match="not a bzImage"):
        loader.prepare(plan(kernel=file(b"#!/bin/sh\n")))


def test_bzimage_as_elf_image_points_at_the_right_option(file) -> None:
    with pytest.raises(ConfigError, match=r"a bzImage is given with -k"):
        loader.prepare(plan(elf=file(make_bzimage())))


@pytest.mark.parametrize(
    ("option", "image", "advice"),
    [
        ("elf", make_elf(64, [(PT_LOAD, 0x10_0000, b"x", 1)]), "neither a PVH entry note nor a multiboot header"),
        ("kernel", make_elf(64, [(PT_LOAD, 0x10_0000, b"x", 1)]), "no PVH entry note, so nothing tells"),
        ("kernel", make_elf(32, [(PT_LOAD, 0x10_0000, b"x", 1)]), "of Linux, a vmlinux made with CONFIG_PVH has"),
        ("kernel", make_multiboot(), "no PVH entry note, but a multiboot header: give it with -E"),
    ],
)
def test_elf_image_that_cannot_be_started_that_way_is_told_another(
    file, option: str, image: bytes, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        loader.prepare(plan(**{option: file(image)}))


def test_image_over_the_acpi_tables_is_refused(file) -> None:
    data = make_elf(32, [(PT_LOAD, 0xF0000, b"x", 0x10000)], entry=0xF0000)
    with pytest.raises(ConfigError, match=r"^-E: .*kernel segment .*and the ACPI table .* overlap"):
        loader.prepare(plan(elf=file(data)))


def debian_kernel() -> Path:
    kernel = lab_kernel()
    if kernel is None:
        pytest.skip("no Debian kernel here, and apt has none")
    return kernel


@pytest.mark.lab
def test_debian_bzimage_fits_128_mib_and_says_so_of_its_ramdisk(file) -> None:
    kernel = debian_kernel()
    assert loader.check(plan(128 * MIB, kernel=kernel, ramdisk=file(bytes(4 * MIB)))) == []
    (problem,) = loader.check(plan(128 * MIB, kernel=kernel, ramdisk=file(bytes(100 * MIB))))
    assert problem.startswith("-r: ")


def vmlinux_of(kernel: Path) -> bytes:
    """Unpack the xz payload of a bzImage."""
    data = kernel.read_bytes()
    header = bzimage.parse_header(image_file(data))
    start = header.entry - 16 * MIB
    payload, length = image_file(data).unpack("II", 0x248, "payload fields")
    stream = data[start + payload : start + payload + length]
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(stream)


@pytest.mark.lab
def test_debian_vmlinux_has_a_pvh_entry_that_loads(file) -> None:
    vmlinux = vmlinux_of(debian_kernel())
    assert any(n.owner == b"Xen" and n.type == 18 for n in elf.parse(image_file(vmlinux)).notes)
    assert loader.prepare(plan(kernel=file(vmlinux))).registers.rip > 16 * MIB
