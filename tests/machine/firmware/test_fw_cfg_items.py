"""What the configuration device is filled with: kernel, memory map, tables, boot order."""

import struct
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import loader
from acrn_dm.boot.acpi.linker import link
from acrn_dm.devices.platform.fw_cfg import FwCfg
from acrn_dm.machine.firmware import fw_cfg_items
from tests.boot.samples import MIB, make_bzimage, plan


class Asked:
    """The device, filled; items by number, files by name."""

    def __init__(self, plan: loader.BootPlan) -> None:
        self.plan = plan
        self.device = FwCfg()
        self.device.fill(fw_cfg_items.items(lambda: self.plan))

    def read(self, number: int, length: int) -> bytes:
        self.device.write(0, 2, number)
        return bytes(self.device.read(1, 1) for _ in range(length))

    def sized(self, size: int, data: int) -> bytes:
        (length,) = struct.unpack("<I", self.read(size, 4))
        return self.read(data, length)

    def files(self) -> dict[str, tuple[int, int]]:
        (count,) = struct.unpack(">I", self.read(0x19, 4))
        entries = struct.iter_unpack(">IHH56s", self.read(0x19, 4 + 64 * count)[4:])
        return {name.rstrip(b"\0").decode(): (number, size) for size, number, _, name in entries}

    def file(self, name: str) -> bytes:
        return self.read(*self.files()[name])


def test_kernel_in_its_two_parts_ramdisk_and_command_line(tmp_path: Path) -> None:
    kernel, ramdisk = tmp_path / "kernel", tmp_path / "ramdisk"
    kernel.write_bytes(make_bzimage(setup_sectors=6))
    ramdisk.write_bytes(b"initrd")
    asked = Asked(plan(kernel=kernel, ramdisk=ramdisk, bootargs="quiet"))
    setup, rest = asked.sized(0x17, 0x18), asked.sized(0x08, 0x11)
    assert len(setup) == 7 * 512
    assert setup + rest == make_bzimage(setup_sectors=6)
    assert asked.sized(0x0B, 0x12) == b"initrd"
    assert asked.sized(0x14, 0x15) == b"quiet\0"


def test_without_a_kernel_its_size_is_0() -> None:
    assert Asked(plan()).sized(0x08, 0x11) == b""


def test_kernel_that_is_no_bzimage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF" + bytes(4096))
    with pytest.raises(ConfigError, match="-k"):
        Asked(plan(kernel=tmp_path / "kernel"))


def test_memory_map_has_whole_ranges_of_ram() -> None:
    entries = list(struct.iter_unpack("<QQI", Asked(plan(5 << 30)).file("etc/e820")))
    assert entries == [(0, 2 << 30, 1), (4 << 30, 3 << 30, 1)]


def test_tables_and_their_script_are_files() -> None:
    asked = Asked(plan())
    linked = link(asked.plan.acpi)
    assert asked.file("etc/acpi/tables") == linked.tables
    assert asked.file("etc/acpi/rsdp") == linked.rsdp
    assert asked.file("etc/table-loader") == linked.script


def test_tables_are_of_the_machine_as_it_is_when_they_are_taken() -> None:
    asked = Asked(plan())
    moved = attrs.evolve(asked.plan.acpi, mmio64=(1 << 40, (1 << 41) - 1))
    asked.plan = attrs.evolve(asked.plan, acpi=moved)
    assert asked.file("etc/acpi/tables") == link(moved).tables


def test_boot_order_has_openfirmware_paths_and_ends_in_a_nul() -> None:
    order = Asked(plan(disks=((3, 0), (26, 5)))).file("bootorder")
    assert order == b"/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/scsi@1a,5/disk@0,0\0"


def test_without_disks_there_is_no_boot_order() -> None:
    assert "bootorder" not in Asked(plan()).files()


def test_nobody_waits_for_a_key() -> None:
    assert Asked(plan(256 * MIB)).file("etc/boot-menu-wait") == bytes(2)
