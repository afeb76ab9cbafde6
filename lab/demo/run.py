"""One demonstration, from the guest's kernel to the judgement."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.testing.guest.consoles import console_log
from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel, debian_kernel
from lab.demo import vmm
from lab.demo.disk import READ_MIB, WRITE_MIB, Disk
from lab.demo.drive import Plan
from lab.demo.log import Log
from lab.demo.places import Place
from lab.guest.dmesg import additional_warnings
from lab.guest.reference import reference_log

PINGS = 20
# TEST-NET-2 (RFC 5737): belongs to nobody.
HOST_ADDRESS = "198.51.100.1"
GUEST_ADDRESS = "198.51.100.2"
GUEST = Path(__file__).resolve().with_name("guest.sh")


def judge(log: Log, disk: Disk, dmesg: Path, reference: str) -> None:
    """What can be told when the run is over: the disk's bytes, and the kernel log beside the reference's."""
    result = disk.verify()
    log.check("disk-bytes", result.ok, result.detail)
    if dmesg.exists() and dmesg.stat().st_size:
        new = additional_warnings(dmesg.read_text(errors="replace"), reference)
        log.check("no-new-warnings", not new, "; ".join(new) or "none about virtio, PCI or ACPI that QEMU has not")


def guest_machine(kernel: Kernel, disk: str, **parts: Any) -> vmm.Machine:
    """The guest that shows everything, with its sockets where the VMM runs."""
    settings = {"READ_MIB": str(READ_MIB), "WRITE_MIB": str(WRITE_MIB), "PINGS": str(PINGS)}
    return vmm.Machine(
        kernel=str(kernel.image),
        initramfs=str(guest_initramfs(kernel, init=guest_init(GUEST), settings=settings)),
        disk=disk,
        tap="acrndemo0",
        console="/run/acrn-dm-demo.console",
        report="/run/acrn-dm-demo.report",
        **parts,
    )


def plan_for(machine: vmm.Machine, argv: list[str], disk: Disk, kernel: Kernel, scratch: Path) -> Plan:
    """What drive.py is told."""
    return Plan(
        argv=argv,
        console=machine.console,
        report=machine.report,
        tap=machine.tap,
        host_address=HOST_ADDRESS,
        guest_address=GUEST_ADDRESS,
        nonce=disk.nonce,
        expected={"kernel": kernel.version, "disk-read": disk.digest, "rings": vmm.rings(argv, machine)},
        serial_log=str(console_log(f"{scratch.name}-inner")),
        dmesg=str(scratch / "dmesg"),
    )


def demonstrate(
    log: Log,
    scratch: Path,
    where: Callable[[Path], AbstractContextManager[Place]],
    command: Callable[[vmm.Machine], list[str]],
    **parts: Any,
) -> vmm.Machine:
    """The whole run, *where* with the disk's file, of the VMM's *command*; *parts* are further fields of the machine.

    Raises HarnessError when it could not be made.
    """
    kernel = debian_kernel()
    reference = reference_log(kernel)
    disk = Disk(scratch / "disk.img")
    with where(disk.path) as (disk_path, drive):
        machine = guest_machine(kernel, disk_path, **parts)
        plan = plan_for(machine, command(machine), disk, kernel, scratch)
        plan_file = scratch / "plan.json"
        plan_file.write_text(json.dumps(attrs.asdict(plan)))
        drive([sys.executable, "-m", "lab.demo.drive", str(plan_file)])
    judge(log, disk, Path(plan.dmesg), reference)
    return machine
