"""virtio-blk beside qemu-storage-daemon (io_uring): one polling driver in C, by turns at the vhost-user socket of each.

``python -m benchmarks.bench_blk`` prints the rows, ``python -m benchmarks blk`` adds them to ``build/bench.json``. Each
daemon has one CPU and an image of its own of the same content; the driver (``_blk_driver.c``) has another CPU. Images
lie in memory (tmpfs), in the page cache of the file system that this folder is on, or behind a loop device (O_DIRECT).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from benchmarks.native import BUILD, ROOT
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Entry, PeerMissing, Skipped, alternate, table

PEER = "qemu-storage-daemon"
MEMORY = Path("/dev/shm")
IMAGE_BYTES, QUICK_BYTES, PIECE = 512 << 20, 64 << 20, 4096
SAMPLE_S, QUICK_S = 0.3, 0.05
POLL_US = 32  # QEMU's default for an I/O thread


@attrs.frozen
class Load:
    """What the driver keeps in flight, and the least that our rate has to be in terms of the peer's."""

    name: str
    depth: int
    kib: int
    at_least: float | None
    polls: bool = True  # the daemons poll
    writes: bool = False
    sleeps: bool = False  # the driver does, until it is interrupted


IN_MEMORY = (
    Load("read 4 KiB, 1 deep, polling", 1, 4, 2.0),
    Load("read 4 KiB, 32 deep, polling", 32, 4, 2.5),
    Load("write 4 KiB, 32 deep, polling", 32, 4, 1.5, writes=True),
    Load("read 128 KiB, 8 deep, polling", 8, 128, 1.2),
    Load("read 4 KiB, 1 deep", 1, 4, 1.0, polls=False),
    Load("read 4 KiB, 32 deep", 32, 4, 1.0, polls=False),
)
CACHED = tuple(attrs.evolve(load, at_least=None) for load in IN_MEMORY)
DIRECT = (
    Load("read 4 KiB, 1 deep", 1, 4, 1.0, polls=False),
    Load("read 4 KiB, 32 deep", 32, 4, 1.0, polls=False),
    Load("write 4 KiB, 32 deep", 32, 4, 1.0, polls=False, writes=True),
)


@attrs.frozen
class Place:
    """Where images lie, how they are opened, and what is measured there."""

    name: str
    loads: tuple[Load, ...]
    direct: bool = False


def driver() -> Path:
    """The driver, compiled when older than its source."""
    source, target = ROOT / "benchmarks" / "_blk_driver.c", BUILD / "bench" / "blk_driver"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(target), str(source)], check=True)
    return target


def two_cpus() -> list[int]:
    """The CPUs there are. Raises PeerMissing."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise PeerMissing("daemon and driver need a CPU each")
    return cpus


def peer_version() -> str:
    """Raises PeerMissing."""
    if shutil.which(PEER) is None:
        raise PeerMissing(f"there is no {PEER}; Debian has it in qemu-system-common or qemu-utils")
    text = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("version", 1)[-1].split()[0]


def ours(socket: Path, image: Path, *, polls: bool, direct: bool) -> list[str]:
    """Our daemon's command line."""
    options = f"{image},writeback{',nocache' if direct else ''}{f',poll_us={POLL_US}' if polls else ''}"
    return [sys.executable, "-m", "benchmarks.blk_daemon", f"--socket-path={socket}", options]


def theirs(socket: Path, image: Path, *, polls: bool, direct: bool) -> list[str]:
    """The peer's."""
    kind, cache = ("host_device", "on") if direct else ("file", "off")
    return [
        PEER,
        *("--object", f"iothread,id=io0,poll-max-ns={POLL_US * 1000 if polls else 0}"),
        *("--blockdev", f"driver={kind},node-name=f,filename={image},aio=io_uring,cache.direct={cache}"),
        "--export",
        f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={socket},writable=on,iothread=io0",
    ]


@contextlib.contextmanager
def served(command: list[str], cpu: int) -> Iterator[int]:
    """A daemon while it runs, on *cpu*: its number."""
    daemon = subprocess.Popen(["taskset", "-c", str(cpu), *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield daemon.pid
    finally:
        daemon.kill()
        daemon.wait()


@attrs.frozen(kw_only=True)
class Disk:
    """A daemon's socket, and the load that is driven there for *seconds* at a time."""

    socket: Path
    load: Load
    seconds: float
    image_bytes: int
    cpu: int  # of the driver

    @property
    def command(self) -> list[str]:
        """The driver's command line."""
        load = self.load
        arguments = [load.depth, load.kib << 10, "write" if load.writes else "read", self.seconds]
        parts = [driver(), self.socket, *arguments, self.image_bytes, self.cpu, *(["sleep"] if load.sleeps else [])]
        return [str(part) for part in parts]

    def rate(self) -> float:
        """Requests a second. RuntimeError if any failed."""
        command = self.command
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if answer.returncode != 0 or answer.stdout.split()[1] != "0":
            raise RuntimeError(f"{' '.join(command)}: {answer.stdout}{answer.stderr}")
        return float(answer.stdout.split()[0])


def write_image(path: Path, size: int) -> None:
    """Fill it with what is no zeroes, so that no file system leaves them out; page by page: larger writes are cached in
    folios as large as there is memory in one piece, and ext4 goes through all of a folio's blocks at each later write.
    """
    piece = os.urandom(PIECE)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // PIECE):
            file.write(piece)
    subprocess.run(["sync", "-d", str(path)], check=True)


@contextlib.contextmanager
def looped(path: Path) -> Iterator[Path]:
    """A loop device on *path*, direct too. Raises PeerMissing."""
    command = ["losetup", "--find", "--show", "--direct-io=on", "--sector-size=512", str(path)]
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        raise PeerMissing("loop devices need root")
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise PeerMissing(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=False)


@contextlib.contextmanager
def images(folder: Path, size: int, *, direct: bool) -> Iterator[tuple[Path, Path]]:
    """Two of the same content. Raises PeerMissing."""
    with contextlib.ExitStack() as stack:
        found = []
        for name in ("ours", "theirs"):
            path = folder / f"{name}.img"
            write_image(path, size)
            stack.callback(path.unlink)
            found.append(stack.enter_context(looped(path)) if direct else path)
        yield found[0], found[1]


def place_rows(place: Place, folder: Path, version: str, *, quick: bool) -> Iterator[Entry]:
    """The rows of one place; each mode of polling has daemons of its own."""
    size = QUICK_BYTES if quick else IMAGE_BYTES
    cpus = two_cpus()
    with images(folder, size, direct=place.direct) as (mine, other), tempfile.TemporaryDirectory() as short:
        near = Path(short)  # socket paths have 107 bytes
        for polls in sorted({load.polls for load in place.loads}, reverse=True):
            sockets = near / f"ours-{polls}", near / f"theirs-{polls}"
            how = {"polls": polls, "direct": place.direct}
            with served(ours(sockets[0], mine, **how), cpus[0]), served(theirs(sockets[1], other, **how), cpus[0]):
                for load in (load for load in place.loads if load.polls == polls):
                    rates = [
                        Disk(socket=s, load=load, seconds=QUICK_S if quick else SAMPLE_S, image_bytes=size, cpu=cpus[1])
                        for s in sockets
                    ]
                    found = alternate(rates[0].rate, rates[1].rate, QUICK_ROUNDS if quick else ROUNDS)
                    name = f"disk {place.name}: {load.name}"
                    yield found.row(name, "requests/s", f"{PEER} io_uring", version, at_least=load.at_least)


def rows(quick: bool) -> Iterator[Entry]:
    """Every place that this host has. Raises PeerMissing."""
    version = peer_version()
    two_cpus()
    BUILD.mkdir(exist_ok=True)
    for place, where in (
        (Place("in memory", IN_MEMORY), MEMORY),
        (Place("in the page cache", CACHED), BUILD),
        (Place("by O_DIRECT on a loop device", DIRECT, direct=True), BUILD),
    ):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            try:
                yield from place_rows(place, Path(folder), version, quick=quick)
            except PeerMissing as e:
                yield Skipped(f"disk {place.name}", str(e))


def main() -> int:
    """Print the rows."""
    print("\n".join(table(rows("--quick" in sys.argv))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
