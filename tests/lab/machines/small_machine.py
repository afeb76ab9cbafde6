"""A small machine in the lab: acrn-dm with disk and report port boots a stock kernel, and what is left of the run."""

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.inner.initramfs import GUEST_MODULES, guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.guest.dmesg import additional_lines
from lab.guest.reference import reference_log
from lab.paths import ROOT
from tests.lab.stemmed import stem

GUEST = Path(__file__).resolve().with_name("machine.sh")
DISK_KIB = 1024
LIMIT = 150.0
SLOW = "hrtimer: interrupt took"  # a kernel on two emulations and a busy host


@attrs.frozen(kw_only=True)
class Run:
    """What is left of one run of acrn-dm."""

    rc: int
    output: str
    report: dict[str, list[str]]  # what the guest said, by the line's first word
    witness: list[dict[str, int | str]]

    def one(self, word: str) -> str:
        """The guest's only line of that word."""
        (line,) = self.report[word]
        return line


@attrs.define(eq=False)
class Rig:
    """Starts acrn-dm in the outer VM with a disk and a report port."""

    vm: OuterVm
    kernel: Kernel
    scratch: Path
    digest: str = ""

    def make_disk(self) -> Path:
        """Its disk: blank, for the count of boots, then noise of known ``digest``."""
        disk = random.Random(7).randbytes(DISK_KIB * 1024)
        blank = bytes(64 << 10)
        (self.scratch / "disk").write_bytes(blank + disk[len(blank) :])
        self.digest = hashlib.sha256(disk[len(blank) :]).hexdigest()
        return self.scratch / "disk"

    def start(
        self,
        *arguments: str,
        action: str = "poweroff",
        append: str = "",
        reboots: int = 0,
        lspci: bool = False,
        programs: Sequence[str] = (),
        disk: str = "",
        boot: Callable[[Path, str], Sequence[str]] | None = None,
    ) -> GuestProcess:
        """Boot with *arguments* added to a small machine; uncompressed, because unpacking takes seconds here.

        *disk*: options of virtio-blk, where its medium has the content of ``make_disk``. *boot* turns initramfs and
        command line into other options to boot them by.
        """
        disk = disk or str(self.make_disk())
        settings = {"ACTION": action, "REBOOTS": str(reboots)}
        modules = [*GUEST_MODULES, *(["button"] if action == "button" else [])]
        initramfs = guest_initramfs(
            self.kernel,
            init=guest_init(GUEST),
            modules=modules,
            settings=settings,
            lspci=lspci,
            programs=programs,
        )
        command_line = f"{COMMAND_LINE} {append}".strip()
        kernel = () if "-k" in arguments else ("-k", str(self.kernel.quick_image))
        direct = (*kernel, "-r", str(initramfs), "-B", command_line)
        argv = [
            *self._observed(disk),
            *(direct if boot is None else boot(initramfs, command_line)),
            *(*arguments, "lab"),
        ]
        return self.vm.spawn(argv, cwd=ROOT, stem=stem())

    def _observed(self, disk: str) -> list[str]:
        """The program, which tells what it did, and the devices of each machine."""
        observer = ("-m", "tests.lab.machines.observed", str(self.scratch / "witness"))
        return [
            *(sys.executable, *observer, "--hypervisor", "kvm"),
            *("-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio"),
            *("-s", f"3,virtio-blk,{disk}"),
            *("-s", f"5,virtio-console,file:report={self.scratch / 'report'}"),
        ]

    def finish(self, process: GuestProcess, timeout: float = LIMIT) -> Run:
        """Wait for the end."""
        process.close_stdin()
        result = process.wait(timeout)
        report: dict[str, list[str]] = {}
        if (self.scratch / "report").exists():
            for line in (self.scratch / "report").read_text(errors="replace").splitlines():
                word, _, rest = line.partition(" ")
                report.setdefault(word, []).append(rest)
        rows = (self.scratch / "witness").read_text().splitlines() if (self.scratch / "witness").exists() else []
        output = result.stdout + result.stderr
        return Run(rc=result.rc, output=output, report=report, witness=[json.loads(row) for row in rows])

    def boot(self, *arguments: str, timeout: float = LIMIT, **how: object) -> Run:
        """``start`` and ``finish``; once more where it was the outer VM that hung or ended, not the guest."""
        try:
            return self.finish(self.start(*arguments, **how), timeout)  # type: ignore[arg-type]
        except HarnessError:
            if self.vm.alive():
                raise
        self.vm.restart()
        self.clean()
        return self.finish(self.start(*arguments, **how), timeout)  # type: ignore[arg-type]

    def clean(self) -> None:
        """Forget what an earlier run left."""
        for old in self.scratch.iterdir():
            old.unlink()


def assert_clean(run: Run, digest: str, devices: int = 2) -> None:
    """The guest ran to its end, saw its disk as it is, and all virtio devices have drivers."""
    assert run.rc == 0, run.output
    assert run.report["digest"] == [digest] * len(run.report["boot"])
    assert set(run.report["drivers"]) == {str(devices)}


def assert_quiet(run: Run, kernel: Kernel) -> None:
    """The guest's kernel has said nothing of level 4 or below that it does not say under QEMU."""
    log = "\n".join(line for line in run.report.get("log", []) if SLOW not in line)
    assert additional_lines(log, reference_log(kernel)) == []


def wait_until(condition: Callable[[], bool], limit: float) -> None:
    """Poll what only the outer VM can change."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the guest did not get there in time"
        time.sleep(0.1)
