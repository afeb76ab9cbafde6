"""The demonstration: a stock Debian kernel boots under acrn-dm and uses every device of the VM, timed and checked.

`python -m tests.lab.demo`, best as root. Where /dev/kvm and hardware virtualization are there acrn-dm runs on this
host ("kvm"), otherwise in the lab's outer VM ("lab"). Writes build/demo.json; the exit status says whether all is well.
"""

import argparse
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import attrs

from . import images, qemu, vmm
from .dmesg import additional_warnings
from .drive import Plan
from .errors import LabError
from .kernel import Kernel, debian_kernel
from .paths import LAB, ROOT
from .reference import boot_reference
from .vm import OuterVm

SCRATCH = LAB / "demo"
RESULT = ROOT / "build" / "demo.json"
MIB = 1 << 20
READ_MIB = 64
WRITE_MIB = 16
PINGS = 20
LIMIT = 300.0  # seconds for everything in the VM; the dialogue has its own, shorter ones
# TEST-NET-2 (RFC 5737): belongs to nobody.
HOST_ADDRESS = "198.51.100.1"
GUEST_ADDRESS = "198.51.100.2"
CHECKS = (
    *("kernel", "pci", "drivers", "rng", "disk-read", "disk-write", "ping", "console", "kernel-log"),
    *("exit", "disk-bytes", "no-new-warnings"),
)

Place = tuple[str, Callable[[list[str]], int]]  # the disk's path where acrn-dm runs, and what runs drive.py there


@attrs.frozen(kw_only=True)
class Check:
    ok: bool
    detail: str


class Log:
    """Prints progress with the seconds since the start, and gathers the checks."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.checks: dict[str, Check] = {}
        self._partial = b""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        print(f"[{self.seconds:6.1f} s] {text}", flush=True)

    def check(self, name: str, ok: bool, detail: str) -> None:
        self.checks[name] = Check(ok=ok, detail=detail)
        self.note(f"{'ok' if ok else 'FAILED':6} {name}: {detail}")

    def failures(self) -> dict[str, str]:
        """What failed or was not reached, with the reason."""
        for name in CHECKS:
            self.checks.setdefault(name, Check(ok=False, detail="not reached"))
        return {name: check.detail for name, check in self.checks.items() if not check.ok}

    def events(self, data: bytes) -> None:
        """Take some of drive.py's output, cut anywhere."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                self.note(line.decode(errors="replace"))  # a traceback
                continue
            if "check" in event:
                self.check(event["check"], event["ok"], event["detail"])
            else:
                self.note(event["note"])


class Disk:
    """The image: known bytes in the first part, zeros where the guest is to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nonce = secrets.token_hex(12)
        content = random.Random(20180401).randbytes(READ_MIB * MIB)
        self.digest = hashlib.sha256(content).hexdigest()
        with path.open("wb") as file:
            file.write(content)
            file.truncate((READ_MIB + WRITE_MIB) * MIB)

    def verify(self) -> Check:
        """Are the first part as it was and the second as the guest was told to write it?"""
        line = self.nonce.encode() + b"\n"
        size = WRITE_MIB * MIB
        written = (line * (size // len(line) + 1))[:size]
        with self.path.open("rb") as file:
            kept = hashlib.sha256(file.read(READ_MIB * MIB)).hexdigest() == self.digest
            arrived = file.read() == written
        return Check(
            ok=kept and arrived,
            detail=f"first {READ_MIB} MiB {'unchanged' if kept else 'CHANGED'}, "
            f"{WRITE_MIB} MiB written by the guest {'arrived' if arrived else 'DIFFER'}",
        )


def kvm_works_here() -> bool:
    """Is there a /dev/kvm with hardware behind it, and are we allowed a tap?"""
    if os.geteuid() != 0 or not os.access("/dev/kvm", os.R_OK | os.W_OK) or not Path("/dev/net/tun").exists():
        return False
    return re.search(r"^flags\s*:.*\b(svm|vmx)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is not None


@contextmanager
def in_outer_vm(vm: OuterVm, log: Log, disk: Path) -> Iterator[Place]:
    """The outer VM works on a copy in its own memory and gives it back: its way to this host's files is no disk's."""
    copy = f"/dev/shm/{disk.name}"
    vm.run(["cp", "--sparse=always", str(disk), copy])
    yield copy, lambda argv: vm.run(argv, cwd=ROOT, timeout=LIMIT, on_output=log.events).rc
    vm.run(["mv", copy, str(disk)])


@contextmanager
def place(mode: str, log: Log, disk: Path) -> Iterator[Place]:
    """Where acrn-dm is to run."""
    if mode == "kvm":

        def on_host(argv: list[str]) -> int:
            with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    log.events(line)
            return process.returncode

        yield str(disk), on_host
        return
    with OuterVm(name="demo-outer") as vm:
        log.note(f"the outer VM is up (software emulation; {vm.early_hangs} early hangs)")
        with in_outer_vm(vm, log, disk) as here:
            yield here


def reference_log(kernel: Kernel) -> str:
    """The kernel log under plain QEMU, kept from one run to the next for each kernel and initramfs."""
    initramfs = images.guest_initramfs(kernel, init=images.guest_script("reference"))
    kept = LAB / "reference" / f"{kernel.tree.name}-{initramfs.stem}.dmesg"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(boot_reference(kernel, initramfs).dmesg)
    return kept.read_text()


def judge(log: Log, disk: Disk, dmesg: Path, reference: str) -> None:
    """What can be told when the run is over: the disk's bytes, and the kernel log beside the reference's."""
    result = disk.verify()
    log.check("disk-bytes", result.ok, result.detail)
    if dmesg.exists() and dmesg.stat().st_size:
        new = additional_warnings(dmesg.read_text(errors="replace"), reference)
        log.check("no-new-warnings", not new, "; ".join(new) or "none about virtio, PCI or ACPI that QEMU has not")


def demonstrate(
    log: Log,
    scratch: Path,
    where: Callable[[Path], AbstractContextManager[Place]],
    command: Callable[[vmm.Machine], list[str]],
    **parts: str,
) -> vmm.Machine:
    """The whole run, *where* with the disk's file, of the VMM's *command*; *parts* are further fields of the machine.

    Raises LabError when it could not be made.
    """
    kernel = debian_kernel()
    reference = reference_log(kernel)
    disk = Disk(scratch / "disk.img")
    dmesg = scratch / "dmesg"
    settings = {"READ_MIB": str(READ_MIB), "WRITE_MIB": str(WRITE_MIB), "PINGS": str(PINGS)}
    initramfs = images.guest_initramfs(kernel, init=images.guest_script("demo"), settings=settings)
    with where(disk.path) as (disk_path, drive):
        machine = vmm.Machine(
            kernel=str(kernel.image),
            initramfs=str(initramfs),
            disk=disk_path,
            tap="acrndemo0",
            console="/run/acrn-dm-demo.console",
            report="/run/acrn-dm-demo.report",
            **parts,
        )
        plan = Plan(
            argv=command(machine),
            console=machine.console,
            report=machine.report,
            tap=machine.tap,
            host_address=HOST_ADDRESS,
            guest_address=GUEST_ADDRESS,
            nonce=disk.nonce,
            expected={"kernel": kernel.version, "disk-read": disk.digest},
            serial_log=str(qemu.console_log(f"{scratch.name}-inner")),
            dmesg=str(dmesg),
        )
        plan_file = scratch / "plan.json"
        plan_file.write_text(json.dumps(attrs.asdict(plan)))
        drive([sys.executable, "-m", "tests.lab.drive", str(plan_file)])
    judge(log, disk, dmesg, reference)
    return machine


def table(checks: dict[str, Check]) -> str:
    width = max(map(len, checks))
    return "\n".join(f"  {name:{width}}  {'ok' if c.ok else 'FAILED':6}  {c.detail}" for name, c in checks.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mode", choices=("kvm", "lab"), help="default: kvm where that works, else lab")
    parser.add_argument("--vmm", choices=vmm.NAMES, default=vmm.NAMES[0], help="qemu: the same checks under QEMU")
    options = parser.parse_args()
    mode = options.mode or ("kvm" if kvm_works_here() else "lab")
    log = Log()
    log.note(f"{options.vmm} in mode {mode}")
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    try:
        demonstrate(log, SCRATCH, partial(place, mode, log), partial(vmm.command, options.vmm))
    except LabError as error:
        log.check("run", False, str(error))
    passed = not log.failures()
    checks = {name: attrs.asdict(check) for name, check in log.checks.items()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"seconds": round(log.seconds, 1), "mode": mode, "checks": checks}, indent=2) + "\n")
    if not passed:
        for name, tail in qemu.console_tails("demo-").items():
            print(f"---- console {name}\n{tail}")
    print(f"\n{table(log.checks)}\n{'passed' if passed else 'FAILED'} in {log.seconds:.1f} s, mode {mode}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
