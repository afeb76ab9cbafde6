"""Where acrn-dm runs in a demonstration: on this host, or in the outer VM."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.demo.log import Log
from lab.paths import ROOT

LIMIT = 300.0  # seconds for everything in the VM; the dialogue has its own, shorter ones

Place = tuple[str, Callable[[list[str]], int]]  # the disk's path where acrn-dm runs, and what runs drive.py there


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
