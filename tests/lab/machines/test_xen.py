"""Xen, a multiboot kernel that is more particular than most, under acrn-dm and under QEMU."""

import contextlib
import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acrn_dm.testing.guest import qemu
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.kernels.packages import suite_package
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT, empty_scratch
from tests.lab.stemmed import stem

pytestmark = pytest.mark.lab

BOOTARGS = "com1=115200,8n1 console=com1 loglvl=all"
GOAL = "*** Building a PV Dom0 ***"
LIMIT_S = 90.0
# Between the first and the last it has been in real mode, read the tables, found its timer and interrupt controllers.
STEPS = (
    "Disc information:",
    "Found 0 EDD information structures",
    "Domain heap initialised",
    "Using ACPI (MADT) for SMP configuration information",
    "Enabling APIC mode.  Using 1 I/O APICs",
    "..TIMER: vector=0xF0 apic1=0 pin1=2 apic2=-1 pin2=-1",
    "Wallclock source: CMOS RTC",
    "Brought up 1 CPUs",
    GOAL,
)


@pytest.fixture
def xen(request: pytest.FixtureRequest) -> Path:
    try:
        (packed,) = suite_package("trixie", "xen-hypervisor-4.20-amd64").glob("boot/xen-*.gz")
    except HarnessUnavailable as e:
        pytest.skip(f"no Xen: {e}")
    kernel = empty_scratch("xen", request.node.name) / "xen"
    kernel.write_bytes(gzip.decompress(packed.read_bytes()))
    return kernel


def under_qemu(xen: Path, module: Path) -> str:
    """What it says there until it builds its first domain."""
    serial = xen.with_name("qemu-serial")
    arguments = [
        *("-machine", "pc,usb=off", "-accel", "tcg", "-cpu", "qemu64", "-m", "1024", "-net", "none", "-no-reboot"),
        *("-kernel", str(xen), "-initrd", str(module), "-append", BOOTARGS),
        *("-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial"),
    ]
    said = ""
    with qemu.running(arguments, log=xen.with_name("qemu-log")) as process:
        deadline = time.monotonic() + LIMIT_S
        while GOAL not in said and process.poll() is None:
            assert time.monotonic() < deadline, f"Xen does not get there under QEMU: {said}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            said = serial.read_text(errors="replace") if serial.exists() else ""
    return said


def steps(said: str) -> list[str]:
    """Those that it has taken, in their order."""
    taken = [(said.index(step), step) for step in STEPS if step in said]
    return [step for _, step in sorted(taken)]


def test_xen_gets_to_its_first_domain_by_the_steps_that_it_takes_under_qemu(
    lab: OuterVm, lab_kernel: Kernel, xen: Path
) -> None:
    if not lab.alive():
        lab.restart()
    process = lab.spawn(
        [
            *(sys.executable, "-m", "acrn_dm", "--hypervisor", "kvm", "-m", "1G", "-s", "0:0,hostbridge"),
            *("-s", "1:0,lpc", "-l", "com1,stdio", "-E", xen, "-r", lab_kernel.image, "-B", f"xen {BOOTARGS}", "lab"),
        ],
        cwd=ROOT,
        stem=stem(),
    )
    try:
        ours = process.wait_for(GOAL, LIMIT_S)
    finally:
        process.signal(9)
    assert steps(under_qemu(xen, lab_kernel.image)) == list(STEPS)
    assert steps(ours) == list(STEPS)
    assert "DMI not present" not in ours
