"""An exit that Python answers, on KVM: a read of a device's registers by memory and by port, and a kick without
ioeventfd; beside the least that C can do.

``python -m benchmarks exit``. A guest of a few instructions (``_exit_guest.c``) does one of these again and again and
tells how many cycles it took. Ours is a machine with an entropy device; the peer (``_exit_floor.c``) answers reads with
a constant, and tells an eventfd of each kick. Both include the way from the guest into the process and back.
"""

import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from acrn_dm.virtio.pci import modern
from benchmarks.native import BUILD, ROOT, compiler
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Entry, PeerMissing, alternate, table

MARK = b"BENCHJOB"
READ_MEMORY, READ_PORT, WRITE_MEMORY = range(3)
ACCESSES, QUICK_ACCESSES = 10_000, 1_000
STATUS, LEGACY_STATUS = 20, 18  # device_status in the common configuration, and among the legacy registers
PATIENCE_S = 120.0
GUEST_FLAGS = ["-m32", "-march=i686", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-mno-sse", "-static"]
GUEST_FLAGS += ["-fno-asynchronous-unwind-tables", "-nostdlib", "-Wl,-N,-Ttext=0x100000,--build-id=none"]
GUEST_FLAGS += ["-Wl,-z,noexecstack"]


@attrs.frozen(kw_only=True)
class Job:
    """One row: what the guest does at *address*; *common*: that of the device which it brings up first."""

    name: str
    kind: int
    address: int
    common: int = 0


def built(source: str, target: str, flags: Iterable[str] = ()) -> Path:
    """What *source* of this folder is compiled to, when older than it. Raises PeerMissing."""
    path, made = ROOT / "benchmarks" / source, BUILD / "bench" / target
    if not made.exists() or made.stat().st_mtime < path.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        run = subprocess.run(
            ["gcc", "-O2", "-Wall", *flags, "-o", made, path], check=False, capture_output=True, text=True
        )
        if run.returncode:
            raise PeerMissing(f"{source} can't be compiled: {run.stderr.splitlines()[0]}")
    return made


def guest(job: Job, accesses: int, folder: Path) -> Path:
    """The guest's file, with *job* in it."""
    image = bytearray(built("_exit_guest.c", "exit_guest.elf", GUEST_FLAGS).read_bytes())
    at = image.index(MARK) + len(MARK)
    image[at : at + 16] = struct.pack("<IIII", job.kind, job.address, accesses, job.common)
    path = folder / "guest.elf"
    path.write_bytes(image)
    return path


def machine(kernel: Path, *more: str) -> list[str]:
    """Our command line: one entropy device, which has registers of both kinds, and no ioeventfd."""
    command = [sys.executable, "-m", "benchmarks.without_ioeventfd", "--hypervisor", "kvm", "--allow-slow-kvm"]
    command += ["-m", "128M", "--hugepages", "off", "--manager-directory", "none", "-l", "com1,stdio"]
    return [*command, "-s", "0,hostbridge", "-s", "3,virtio-rnd", "-E", str(kernel), *more, "bench"]


def cycles(command: list[str]) -> int:
    """What the guest of *command* says; it is ended then. Raises RuntimeError where it says nothing."""
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
        _, errors = process.communicate(timeout=PATIENCE_S)
    if len(line.strip()) != 16:
        raise RuntimeError(f"{command[0]} says {line!r}: {errors[-300:]}")
    return int(line, 16)


def us(command: Callable[[Path], list[str]], job: Job, accesses: int, khz: int, folder: Path) -> float:
    """Microseconds of one access of *job*; *command* runs a guest."""
    return cycles(command(guest(job, accesses, folder))) / khz * 1000 / accesses


def jobs(folder: Path) -> Iterator[Job]:
    """The rows, at the places where our machine puts the device."""
    kernel = guest(Job(name="", kind=READ_PORT, address=0), 0, folder)
    shown = subprocess.run(machine(kernel, "--dry-run", "--json"), cwd=ROOT, check=True, capture_output=True, text=True)
    bars = {bar["kind"]: bar["address"] for bar in json.loads(shown.stdout)["devices"][-1]["bars"]}
    common = bars["mem64"] + modern.COMMON_OFFSET
    yield Job(name="exit, common configuration read (memory)", kind=READ_MEMORY, address=common + STATUS)
    yield Job(name="exit, legacy register read (port)", kind=READ_PORT, address=bars["io"] + LEGACY_STATUS)
    kick = bars["mem64"] + modern.NOTIFY_OFFSET
    yield Job(name="exit, kick without ioeventfd (memory)", kind=WRITE_MEMORY, address=kick, common=common)


def rows(quick: bool) -> Iterable[Entry]:
    """A row for each kind. Raises PeerMissing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise PeerMissing("no /dev/kvm that opens")
    floor = built("_exit_floor.c", "exit_floor")
    khz = int(subprocess.run([floor], check=True, capture_output=True, text=True).stdout)
    accesses, rounds = (QUICK_ACCESSES, QUICK_ROUNDS) if quick else (ACCESSES, ROUNDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for job in jobs(folder):
            bare = attrs.evolve(job, common=0)  # the peer has no device to bring up
            ours = functools.partial(us, machine, job, accesses, khz, folder)
            peer = functools.partial(us, lambda kernel: [str(floor), str(kernel)], bare, accesses, khz, folder)
            yield alternate(ours, peer, rounds).row(job.name, "us", "the least that C can do", compiler())


def main() -> int:
    """Measure and print; 0 also where there is nothing to measure with."""
    try:
        for line in table(rows(quick=False)):
            print(line)
    except PeerMissing as e:
        print(f"bench_exit: {e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
