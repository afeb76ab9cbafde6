"""What a sandbox costs a disk's requests: the filter's part of a system call, times the calls that a request takes.

``python -m benchmarks sandbox``. While a device runs nothing of a sandbox is in the way of its calls but the filter,
which costs each of them the same: the kernel knows beforehand that those of a data plane are allowed. So the cost is
what one call takes more (``filtered_call``) by how many a daemon makes for a request under one driver in C
(``_blk_driver.c``); perf counts them. Beside it stands the time that a request takes without a sandbox.

Two daemons beside each other, with and without a sandbox, differ by more than that, as two without do.

The driver sleeps until it is interrupted, as guests do. One that polls is in rows without a limit: one deep it has its
answer within a microsecond, of which a single call's filter is several percent.
"""

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench_blk import MEMORY, QUICK_BYTES, QUICK_S, SAMPLE_S, Disk, Load, images, served, two_cpus
from benchmarks.native import ROOT
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Alternated, Entry, PeerMissing, table

MOST = 1.02  # of the time of a request without
EVENT = "raw_syscalls:sys_enter"
LOADS = (
    Load("read 4 KiB, 1 deep", 1, 4, None, polls=False, sleeps=True),
    Load("read 4 KiB, 32 deep", 32, 4, None, polls=False, sleeps=True),
    Load("write 4 KiB, 1 deep", 1, 4, None, polls=False, writes=True, sleeps=True),
    Load("write 4 KiB, 32 deep", 32, 4, None, polls=False, writes=True, sleeps=True),
    Load("read 4 KiB, 1 deep, driver polls", 1, 4, None, polls=False),
    Load("read 4 KiB, 32 deep, driver polls", 32, 4, None, polls=False),
)


def daemon(socket: Path, image: Path) -> list[str]:
    """Its command line: threads do what can't be answered at once, for with ``strict`` there is no io_uring."""
    return [sys.executable, "-m", "benchmarks.blk_daemon", f"--socket-path={socket}", f"{image},writeback,aio=threads"]


def call_ns(rounds: int) -> Alternated:
    """A system call with the filter and without."""
    command = [sys.executable, "-m", "benchmarks.filtered_call"]
    answers = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(rounds)]
    pairs = [tuple(map(float, answer.stdout.split())) for answer in answers]
    return Alternated(ours=tuple(after for _, after in pairs), peer=tuple(before for before, _ in pairs))


def calls_of(pid: int, disk: Disk) -> tuple[float, float]:
    """Requests a second, and the system calls that process *pid* makes for one. Raises PeerMissing."""
    count = ["perf", "stat", "-e", EVENT, "-x", ",", "-p", str(pid), "--"]
    if shutil.which("perf") is None:
        raise PeerMissing("there is no perf; Debian has it in linux-perf")
    done = subprocess.run([*count, *disk.command], capture_output=True, text=True, timeout=60, check=False)
    counted = [line for line in done.stderr.splitlines() if EVENT in line]
    if done.returncode != 0 or not counted or not counted[0].partition(",")[0].isdigit():
        raise PeerMissing(f"perf counts no system calls: {done.stderr.strip().partition(chr(10))[0]}")
    rate = float(done.stdout.split()[0])
    return rate, int(counted[0].partition(",")[0]) / (rate * disk.seconds)


def row(load: Load, filter_ns: float, *, quick: bool) -> Entry:
    """Nanoseconds of a request, with a sandbox and without. Raises PeerMissing."""
    cpus, size, rounds = two_cpus(), QUICK_BYTES, QUICK_ROUNDS if quick else ROUNDS
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        near = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # socket paths have 107 bytes
        image, _ = stack.enter_context(images(folder, size, direct=False))
        pid = stack.enter_context(served(daemon(near / "disk", image), cpus[0]))
        seconds = QUICK_S if quick else SAMPLE_S
        disk = Disk(socket=near / "disk", load=load, seconds=seconds, image_bytes=size, cpu=cpus[1])
        disk.rate()  # it is there
        found = [calls_of(pid, disk) for _ in range(rounds)]
    took = [(1e9 / rate, calls * filter_ns) for rate, calls in found]
    costs = Alternated(ours=tuple(ns + more for ns, more in took), peer=tuple(ns for ns, _ in took))
    calls = statistics.median(calls for _, calls in found)
    beside = f"without, {calls:.2f} calls"
    return costs.row(f"sandbox: {load.name}", "ns/request", beside, "", at_most=MOST if load.sleeps else None)


def rows(quick: bool) -> Iterator[Entry]:
    """A row of the call, and one of each load. Raises PeerMissing."""
    call = call_ns(QUICK_ROUNDS if quick else ROUNDS)
    yield call.row("sandbox: a system call", "ns", "without", "")
    filter_ns = statistics.median(after - before for after, before in zip(call.ours, call.peer, strict=True))
    for load in LOADS:
        yield row(load, filter_ns, quick=quick)


def main() -> int:
    """Print the rows."""
    print("\n".join(table(rows("--quick" in sys.argv))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
