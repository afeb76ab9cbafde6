"""Kernels that are no Linux, on another vendor's board: does what the loaders make start them?"""

import gzip
import shutil
from pathlib import Path

import pytest

from acrn_dm.boot import loader
from acrn_dm.boot.acpi import AcpiInputs
from acrn_dm.memory.guest_memory import guest_ranges
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.packages import suite_package
from tests.boot import bare_qemu
from tests.boot.samples import MIB, lab_kernel

pytestmark = pytest.mark.lab

MEMORY_MIB = 256
INPUTS = AcpiInputs(apic_ids=(0,), uarts=(("COM1", 0x3F8, 4),), pm_timer_port=0x408)


def packaged(suite: str, package: str, pattern: str, folder: Path) -> Path:
    """A file of a Debian package, unpacked."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is missing")
    try:
        (found,) = suite_package(suite, package).glob(pattern)
    except HarnessUnavailable as e:
        pytest.skip(str(e))
    if found.suffix != ".gz":
        return found
    kernel = folder / found.stem
    kernel.write_bytes(gzip.decompress(found.read_bytes()))
    return kernel


def boot(folder: Path, until: str, bootargs: str, **files: Path) -> str:
    """What it writes to the first serial port, until *until* or a reset."""
    plan = loader.BootPlan(**files, bootargs=bootargs, memory_ranges=guest_ranges(MEMORY_MIB * MIB), acpi=INPUTS)  # type: ignore[arg-type]
    return bare_qemu.run(loader.prepare(plan), folder, memory_mib=MEMORY_MIB, cpus=1, until=until)


def test_memtest_which_is_not_relocatable_runs(tmp_path: Path) -> None:
    kernel = packaged("sid", "memtest86+", "boot/*x64", tmp_path)
    assert "Memtest86+ v" in boot(tmp_path, "Memtest86+ v", "console=ttyS0,115200", kernel=kernel)


def test_xen_has_been_in_real_mode_and_builds_its_first_domain(tmp_path: Path) -> None:
    """It counts disks by BIOS calls. The first word of its command line it takes for its name."""
    kernel = packaged("trixie", "xen-hypervisor-4.20-amd64", "boot/xen-*.gz", tmp_path)
    linux = lab_kernel()
    if linux is None:
        pytest.skip("no Debian kernel, which is to be the first domain")
    bootargs = "xen com1=115200,8n1 console=com1 loglvl=all"
    text = boot(tmp_path, "*** Building a PV Dom0 ***", bootargs, elf=kernel, ramdisk=linux)
    assert "Found 0 EDD information structures" in text
    assert "Multiboot-e820 RAM map" in text
    assert "ACPI: RSDP 000F2400" in text
    assert "*** Building a PV Dom0 ***" in text


def test_64_bit_multiboot_kernel_runs_to_its_search_for_a_server(tmp_path: Path) -> None:
    kernel = packaged("sid", "gnumach-image-1.8-amd64-up", "boot/gnumach-*.gz", tmp_path)
    end = "No bootstrap code loaded with the kernel"
    assert end in boot(tmp_path, end, "gnumach console=com0", elf=kernel)
