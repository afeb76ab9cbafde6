"""A disk's daemon behind our vhost-user front-end, beside the same daemon with the driver at its own socket.

``python -m benchmarks frontend``. One driver in C (``_blk_driver.c``) polls in front of both; each has a daemon of its
own, an image in memory of the same content, and for daemon and front-end together the CPU that the daemon has alone.
Rows "handed on" are what a daemon gets that takes notes of what it has in flight: the driver's own rings and eventfds.
One that takes none gets them, too, and has them watched; with ``relay=on`` its requests pass through the front-end.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from benchmarks.bench_blk import (
    MEMORY,
    PEER,
    POLL_US,
    QUICK_BYTES,
    QUICK_S,
    SAMPLE_S,
    Disk,
    Load,
    driver,
    images,
    ours,
    peer_version,
    served,
    theirs,
    two_cpus,
)
from benchmarks.native import ROOT
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Entry, alternate, table

WAYS = {"handed on": 0.95, "watched": 0.8, "relayed": None}  # of the daemon's own figure, at least
LOADS = (
    Load("read 4 KiB, 1 deep, polling", 1, 4, None),
    Load("read 4 KiB, 32 deep, polling", 32, 4, None),
    Load("read 4 KiB, 1 deep", 1, 4, None, polls=False),
    Load("read 4 KiB, 32 deep", 32, 4, None, polls=False),
)
Command = Callable[..., list[str]]


@attrs.frozen(kw_only=True)
class Behind:
    """A front-end that is connected to a daemon, and the load that is driven through it for *seconds* at a time."""

    process: "subprocess.Popen[str]"
    load: Load
    seconds: float
    image_bytes: int
    cpu: int  # of the driver

    def rate(self) -> float:
        """Requests a second. RuntimeError if any failed."""
        load = self.load
        words = [
            load.depth,
            load.kib << 10,
            "write" if load.writes else "read",
            self.seconds,
            self.image_bytes,
            self.cpu,
        ]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 3 or answer[1] != "0":
            raise RuntimeError(f"{load.name} behind the front-end: {' '.join(answer)}")
        return float(answer[0])


@contextlib.contextmanager
def front_end(socket: Path, cpu: int, *, polls: bool, way: str) -> Iterator["subprocess.Popen[str]"]:
    """One of ours, on *cpu*."""
    words = (",relay=on" if way == "relayed" else "") + (f",poll_us={POLL_US}" if polls else "")
    options = [*(["--handed-on"] if way == "handed on" else []), str(socket), words]
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "benchmarks.blk_frontend", *options, str(driver())]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def mode_rows(name: str, daemon: Command, version: str, *, polls: bool, way: str, quick: bool) -> Iterator[Entry]:
    """The rows of one daemon, with or without polling."""
    cpus, size = two_cpus(), QUICK_BYTES
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        near = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # socket paths have 107 bytes
        sockets = near / "behind", near / "alone"
        for socket, image in zip(sockets, stack.enter_context(images(folder, size, direct=False)), strict=True):
            stack.enter_context(served(daemon(socket, image, polls=polls, direct=False), cpus[0]))
        alone = {"seconds": QUICK_S if quick else SAMPLE_S, "image_bytes": size, "cpu": cpus[1]}
        for socket in sockets:
            Disk(socket=socket, load=LOADS[0], **alone).rate()  # it is there
        process = stack.enter_context(front_end(sockets[0], cpus[0], polls=polls, way=way))
        for load in (load for load in LOADS if load.polls == polls):
            behind = Behind(process=process, load=load, **alone)
            direct = Disk(socket=sockets[1], load=load, **alone)
            found = alternate(behind.rate, direct.rate, QUICK_ROUNDS if quick else ROUNDS)
            name_of_row = f"{name} {way}: {load.name}"
            yield found.row(name_of_row, "requests/s", "the same alone", version, at_least=WAYS[way])


def rows(quick: bool) -> Iterator[Entry]:
    """Each daemon, in each way, with and without polling. Raises PeerMissing."""
    version = peer_version()
    two_cpus()
    for name, daemon, of in ((PEER, theirs, version), ("acrn-dm-vhost-user", ours, "")):
        for way in WAYS:
            for polls in (True, False):
                yield from mode_rows(name, daemon, of, polls=polls, way=way, quick=quick)


def main() -> int:
    """Print the rows."""
    print("\n".join(table(rows("--quick" in sys.argv))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
