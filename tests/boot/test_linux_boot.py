"""A stock Linux kernel, entered as the loaders say, on another vendor's board: does it like what our tables tell it?"""

import re
import shutil
from pathlib import Path

import pytest

from acrn_dm.boot import loader
from acrn_dm.boot.acpi import AcpiInputs
from acrn_dm.memory.guest_memory import guest_ranges
from tests.boot import bare_qemu
from tests.boot.samples import MIB, lab_kernel
from tests.boot.test_loader import vmlinux_of

pytestmark = pytest.mark.lab

MEMORY_MIB = 256
SERIAL_GSI = 21  # not what q35's own wiring would give slot 4: it has to come from our _PRT
INPUTS = AcpiInputs(
    apic_ids=(0, 1),
    prt=((4, 0, SERIAL_GSI),),
    uarts=(("COM1", 0x3F8, 4),),
    last_bus=3,
    pm_timer_port=0x408,
)


def kernel_file(kind: str, folder: Path) -> Path:
    kernel = lab_kernel()
    if kernel is None:
        pytest.skip("no Debian kernel in build/lab; the lab fetches it")
    if kind == "bzImage":
        return kernel
    path = folder / "vmlinux"
    path.write_bytes(vmlinux_of(kernel))
    return path


@pytest.fixture(scope="module", params=["bzImage", "vmlinux"])
def console(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the kernel says until it finds no root file system and resets."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is missing")
    folder = tmp_path_factory.mktemp("boot")
    ramdisk = folder / "ramdisk"
    ramdisk.write_bytes(bytes(5000))
    plan = loader.BootPlan(
        kernel=kernel_file(request.param, folder),
        ramdisk=ramdisk,
        bootargs="console=ttyS0 panic=-1 loglevel=8 mitigations=off marker=7",
        memory_ranges=guest_ranges(MEMORY_MIB * MIB),
        acpi=INPUTS,
    )
    devices = ("pci-serial,addr=4,chardev=none", "virtio-rng-pci,addr=3")
    text = bare_qemu.run(loader.prepare(plan), folder, memory_mib=MEMORY_MIB, cpus=2, devices=devices)
    assert "Linux version" in text, text
    return text.replace("\r", "")


def test_kernel_runs_to_the_search_for_a_root(console: str) -> None:
    assert "Unable to mount root fs" in console


def test_kernel_has_no_complaint_about_the_tables(console: str) -> None:
    lines = [line for line in console.splitlines() if re.search(r"ACPI|FADT|PNP|pnp|MMCONFIG|Firmware", line)]
    assert lines
    bad = re.compile(r"Error|Warning|ACPI BIOS|Firmware Bug|[Ii]nvalid|[Mm]ismatch|[Ff]ailed|broken|can't|could not")
    assert [line for line in lines if bad.search(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "Command line: .*marker=7",
        r"RAMDISK: \[mem 0x[0-9a-f]+-0x[0-9a-f]+\]",
        r"BIOS-e820: \[mem 0x0000000000000000-0x000000000009ffff\] usable",
        r"BIOS-e820: \[mem 0x0000000000100000-0x000000000fffffff\] usable",
        r"BIOS-e820: \[mem 0x00000000e0000000-0x00000000ffffffff\] reserved",
        r"found SMP MP-table at \[mem 0x000f0000-0x000f000f\]",
        "ACPI: RSDP 0x00000000000F2400 000024 .v02",
        "ACPI: PM-Timer IO Port: 0x408",
        "IOAPIC.0.: .*address 0xfec00000",
        "INT_SRC_OVR .bus 0 bus_irq 9 global_irq 9 high level",
        "Brought up 1 node, 2 CPUs",
        r"MMCONFIG for domain 0000 \[bus 00-03\] at \[mem 0xe0000000-0xe03fffff\]",
        "MMCONFIG .*reserved in",
        r"supports S0 S5",
        r"OS now controls \[PME AER PCIeCapability\]",
        r"root bus resource \[mem 0x80000000-0xdfffffff window\]",
        r"root bus resource \[mem 0x4000000000-0x7fffffffff window\]",
        r"root bus resource \[bus 00-03\]",
        rf"0000:00:04.0: ttyS1 at I/O 0x[0-9a-f]+ \(irq = {SERIAL_GSI},",
        "00:0[0-9]: ttyS0 at I/O 0x3f8 .irq = 4",
        r"i8042: PNP: No PS/2 controller found\.",
        "rtc_cmos 00:0[0-9]: registered",
    ],
)
def test_kernel_understands(console: str, line: str) -> None:
    assert re.search(line, console), console
