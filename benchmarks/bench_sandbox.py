"""What a sandbox costs a disk's requests: a daemon with ``--sandbox=strict`` beside the same daemon without one.

``python -m benchmarks sandbox``. One driver in C (``_blk_driver.c``) polls at the vhost-user socket of each, by turns.
The daemons share a CPU, the driver has another, and images lie in memory. Both daemons have threads for what can't be
answered at once: io_uring, which executes what no filter sees, is refused in the one.

What is looked for is less than what one process differs from the next of the same kind, by where things lie in memory,
and one short measurement from another: there are many of both.
"""

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench_blk import MEMORY, QUICK_BYTES, QUICK_S, Disk, Load, images, served, two_cpus
from benchmarks.rows import QUICK_ROUNDS, Alternated, Entry, alternate, table

MODES = ("strict", "off")
PROCESSES = 7  # of each kind, one after the other
ROUNDS = 21  # of each pair of processes
LEAST = 0.98  # of the rate without
LOADS = (
    Load("read 4 KiB, 1 deep", 1, 4, LEAST, polls=False),
    Load("read 4 KiB, 32 deep", 32, 4, LEAST, polls=False),
    Load("write 4 KiB, 32 deep", 32, 4, LEAST, polls=False, writes=True),
)


def daemon(socket: Path, image: Path, mode: str) -> list[str]:
    """Its command line."""
    options = f"{image},writeback,aio=threads"
    return [sys.executable, "-m", "benchmarks.blk_daemon", f"--socket-path={socket}", f"--sandbox={mode}", options]


def measured(load: Load, quick: bool) -> Alternated:
    """Two new daemons under *load*, by turns. Raises PeerMissing."""
    cpus, size = two_cpus(), QUICK_BYTES
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        near = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # socket paths have 107 bytes
        for mode, image in zip(MODES, stack.enter_context(images(folder, size, direct=False)), strict=True):
            stack.enter_context(served(daemon(near / mode, image, mode), cpus[0]))
        strict, off = (
            Disk(socket=near / mode, load=load, seconds=QUICK_S, image_bytes=size, cpu=cpus[1]) for mode in MODES
        )
        return alternate(strict.rate, off.rate, QUICK_ROUNDS if quick else ROUNDS)


def rows(quick: bool) -> Iterator[Entry]:
    """A row of each load. Raises PeerMissing."""
    for load in LOADS:
        pairs = [measured(load, quick) for _ in range(1 if quick else PROCESSES)]
        found = Alternated(
            ours=tuple(itertools.chain.from_iterable(it.ours for it in pairs)),
            peer=tuple(itertools.chain.from_iterable(it.peer for it in pairs)),
        )
        yield found.row(f"sandbox=strict: {load.name}", "requests/s", "sandbox=off", "", at_least=load.at_least)


def main() -> int:
    """Print the rows."""
    print("\n".join(table(rows("--quick" in sys.argv))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
