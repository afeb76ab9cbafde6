"""Frames of a card: to and from a tap beside bare ``write`` and ``read`` on the same tap, and memory to memory beside
dpdk-testpmd's vhost driver.

One driver at C speed is in front of all of them, on a core of its own; ours runs on the thread of its I/O loop. On taps
it is the processor time of the thread that moves the frames that counts, system calls included, ours and the bare
loop's: it is what a frame costs, and a machine that others use disturbs it least. The bare loops use the driver's
buffers in turn, as we have to: one that is always in the cache would be another thing. Memory to memory
both spin, so there it is the time of the clock.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from acrn_dm.backends import user
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices import virtio_net
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import PACKED, VERSION_1
from benchmarks.native import ROOT, native
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Entry, PeerMissing, Skipped, alternate, table

MIB = 1 << 20
HEADER = 12
STRIDE = 2048
FRAMES = 8192  # of a round on a tap
QUEUED = 4096  # of a round that waits in the tap before it is read
LOOPED = 1_000_000  # of a round memory to memory
WINDOW = 512
PAGES = 192  # huge pages for testpmd
NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
TAP_LIMIT, TESTPMD_LIMIT = 0.9, 0.5
MRG_RXBUF = 1 << 15
START_S = 20.0


Process: TypeAlias = "subprocess.Popen[bytes]"


def pin(name: str | None = None) -> None:
    """Keep this thread on the first core, or the thread called *name* on the last one, as testpmd's is."""
    cores = sorted(os.sched_getaffinity(0)) if name is None else sorted(range(os.cpu_count() or 1))
    if name is None:
        os.sched_setaffinity(0, cores[:1])
    for thread in threading.enumerate():
        if thread.name == name and thread.native_id is not None:
            os.sched_setaffinity(thread.native_id, cores[-1:])


def frame(size: int) -> bytes:
    """A frame of the local experimental type, for everybody."""
    return (b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5").ljust(size, b".")


class Card:
    """A started driver's two queues at C speed."""

    def __init__(self, machine: SimMachine, driver: VirtioDriver, size: int, *, packed: bool) -> None:
        ram = memoryview(machine.memory.regions[0].mapping).cast("B")
        self.sides: list[Any] = []
        for queue in (0, 1):
            layout = driver.queue(queue).ring.layout
            pages = [machine.heap.take(64 * STRIDE) for _ in range(layout.size // 64)]
            for i in range(layout.size):
                at = pages[0] + i * STRIDE
                ram[at : at + HEADER + size] = bytes(HEADER) + frame(size)
            length = HEADER + size if queue else STRIDE
            notify = functools.partial(driver.registers.notify, queue)
            arguments = {"packed": packed, "writable": not queue, "buffers": pages[0], "length": length}
            self.sides.append(native("_bench_net").Side(ram, layout, notify, **arguments))

    def close(self) -> None:
        """Let go of the machine's memory."""
        for side in self.sides:
            side.close()

    @property
    def rx(self) -> Any:
        """The receive queue."""
        return self.sides[0]

    @property
    def tx(self) -> Any:
        """The transmit queue."""
        return self.sides[1]


@contextlib.contextmanager
def on_a_tap(name: str, size: int, *, packed: bool) -> Iterator[tuple[Card, int, int]]:
    """A card on tap *name*, the tap's descriptor, and the clock of its I/O thread's processor time."""
    with SimMachine(memory=64 * MIB, plugins=[virtio_net]) as machine:
        function: Any = machine.add("virtio-net", f"tap={name}", slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | MRG_RXBUF | (PACKED if packed else 0))
        machine.settle()
        card = Card(machine, driver, size, packed=packed)
        loop = machine.io_loops["io"]
        loop.start()
        pin("io")
        clock = next(time.pthread_getcpuclockid(t.ident) for t in threading.enumerate() if t.name == "io" and t.ident)
        try:
            yield card, function.device.taps[0].fd, clock
        finally:
            loop.stop()
            card.close()


@contextlib.contextmanager
def tap() -> Iterator[str]:
    """A tap that is up, with a queue that holds a round. Raises PeerMissing."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        raise PeerMissing("a tap needs root, iproute2 and /dev/net/tun")
    name = f"dmb{os.getpid() % 100000}"
    subprocess.run(["ip", "tuntap", "add", "mode", "tap", "name", name], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "addrgenmode", "none", "txqueuelen", str(2 * QUEUED)], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)


def beside(work: Callable[..., object], *arguments: object) -> None:
    """Do *work* on the core that ours runs on: who frees what another core has made pays for that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(range(os.cpu_count() or 1))})
    try:
        work(*arguments)
    finally:
        os.sched_setaffinity(0, before)


def rate(clock: int, frames: int, work: Callable[[int], object]) -> float:
    """Millions of frames in a second of *clock*, where *work* moves so many *frames*."""
    before = time.clock_gettime_ns(clock)
    work(frames)
    return frames * 1e3 / (time.clock_gettime_ns(clock) - before)


def tap_rows(name: str, size: int, rounds: int, *, packed: bool) -> Iterator[Entry]:
    """Both directions."""
    module, bare = native("_bench_net"), time.CLOCK_THREAD_CPUTIME_ID
    shape, body = f"{size} B, {'packed' if packed else 'split'}", frame(size)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire, on_a_tap(name, size, packed=packed) as (card, fd, clock):
        wire.bind((name, 0))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * MIB)
        carrier(wire, fd)

        def arrived() -> int:
            return int(module.arrive(wire.fileno(), body, QUEUED))

        for_tx = alternate(
            lambda: rate(clock, FRAMES, functools.partial(module.one_way, card.tx)),
            lambda: rate(bare, FRAMES, functools.partial(beside, module.bare_writes, fd, card.tx)),
            2 * rounds + 1,
        )
        for_rx = alternate(
            lambda: rate(clock, arrived(), functools.partial(module.one_way, card.rx)),
            lambda: rate(bare, arrived(), functools.partial(beside, module.bare_reads, fd, card.rx)),
            2 * rounds + 1,
        )
    yield for_tx.row(f"tap tx {shape}", "Mframes/cpu s", "write(2)", os.uname().release, at_least=TAP_LIMIT)
    yield for_rx.row(f"tap rx {shape}", "Mframes/cpu s", "read(2)", os.uname().release, at_least=TAP_LIMIT)


def carrier(wire: socket.socket, fd: int) -> None:
    """Until the kernel hands frames to the tap, and none is left there: it notices the carrier up to a second late."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        wire.send(frame(60))
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 2 * STRIDE):
                deadline = min(deadline, time.monotonic() + 0.1)
        time.sleep(0.01)


class WireFile(PacketFile):
    """A wire in memory, by its way in C."""

    def __init__(self) -> None:
        super().__init__(fd=-1, vnet_header=True)
        self._wire = native("_bench_net").Wire(-1, True)

    def port(self) -> Any:
        """See ``HasPort``."""
        return self._wire

    def close(self) -> None:
        """There is no descriptor."""


@contextlib.contextmanager
def on_a_wire(*, packed: bool) -> Iterator[Card]:
    """Our card on a wire in memory; its loop looks all the time, as testpmd does."""

    def create(context: DeviceContext) -> NetDevice:
        return NetDevice(NetConfig.from_string("tap=none"), context, lambda _: WireFile())

    with SimMachine(memory=64 * MIB) as machine:
        machine.add(create, slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | MRG_RXBUF | (PACKED if packed else 0))
        machine.settle()
        card = Card(machine, driver, 64, packed=packed)
        loop = machine.io_loops["io"]
        loop.poll.poll_limit = 1_000_000_000
        loop.start()
        pin("io")
        try:
            yield card
        finally:
            loop.stop()
            card.close()


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    """Huge pages for testpmd. Raises PeerMissing."""
    before = NR_HUGEPAGES.read_text()
    NR_HUGEPAGES.write_text(str(int(before) + PAGES))
    try:
        if int(NR_HUGEPAGES.read_text()) < int(before) + PAGES:
            raise PeerMissing(f"dpdk-testpmd needs {PAGES} huge pages")
        yield
    finally:
        NR_HUGEPAGES.write_text(before)


@contextlib.contextmanager
def on_testpmd(*, packed: bool) -> Iterator[tuple[Card, Process]]:
    """A card in front of testpmd, which sends every frame back, on the other core; and its process."""
    with tempfile.TemporaryDirectory() as folder, huge_pages():
        path = Path(folder) / "net.sock"
        vdev = f"net_vhost0,iface={path},queues=1"
        eal = ["-l", "0,1", "--no-pci", "--no-telemetry", "--in-memory", "-m", "256", "--vdev", vdev]
        forward = ["--auto-start", "--forward-mode=io", "--port-topology=loop", "--no-mlockall", "--stats-period=60"]
        with in_front_of(["dpdk-testpmd", *eal, "--", *forward], path, packed=packed) as found:
            yield found


@contextlib.contextmanager
def on_an_export(*, packed: bool) -> Iterator[tuple[Card, Process]]:
    """A card in front of a process of ours that does the same, on that core."""
    with tempfile.TemporaryDirectory() as folder:
        path, core = Path(folder) / "net.sock", max(range(os.cpu_count() or 1))
        command = [sys.executable, "-m", "benchmarks.net_daemon", f"--socket-path={path}"]
        with in_front_of(["taskset", "-c", str(core), *command], path, packed=packed) as found:
            yield found


@contextlib.contextmanager
def in_front_of(command: list[str], path: Path, *, packed: bool) -> Iterator[tuple[Card, Process]]:
    """A card in front of the vhost-user back-end that *command* starts and that listens at *path*; and its process.
    Raises PeerMissing.
    """
    with (path.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with SimMachine(memory=64 * MIB, plugins=[virtio_net, user]) as machine:
            machine.add("virtio-net", f"vhost-user={path}{',packed=on' if packed else ''}", slot=3)
            driver = machine.driver(3)
            driver.start(VERSION_1 | MRG_RXBUF | (PACKED if packed else 0))
            machine.settle()
            card = Card(machine, driver, 64, packed=packed)
            try:
                begin(card)
                yield card, process
            finally:
                card.close()
    finally:
        process.kill()
        process.wait()


def begin(card: Card) -> None:
    """Single frames until they come back: testpmd takes frames before it may send any, and drops them. Raises
    PeerMissing.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            native("_bench_net").there_and_back(card.tx, card.rx, 1, 1, 0.2)
            return
    raise PeerMissing("no frame comes back")


def looped(card: Card, frames: int) -> float:
    """Millions of frames a second, there and back."""
    return frames * 1e3 / float(native("_bench_net").there_and_back(card.tx, card.rx, frames, WINDOW))


def dpdk_version() -> str:
    """As Debian's package has it: testpmd does not say."""
    command = ["dpkg-query", "-W", "-f", "${Version}", "dpdk-dev"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextlib.contextmanager
def at_rest(process: Process) -> Iterator[None]:
    """*process*, which spins on the core that another is measured on, does not while the block runs."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def testpmd_rows(rounds: int, frames: int, *, packed: bool) -> Iterator[Entry]:
    """Memory to memory: a card in this process, and one that is exported by another. Raises PeerMissing."""
    name = f"memory to memory 64 B, {'packed' if packed else 'split'}"
    if shutil.which("dpdk-testpmd") is None or os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        yield Skipped(name, "dpdk-testpmd (Debian package dpdk-dev) needs root and two cores")
        return
    with on_an_export(packed=packed) as (exported, ours), on_testpmd(packed=packed) as (theirs, process):

        def measure_ours() -> float:
            with at_rest(process), on_a_wire(packed=packed) as card:
                return looped(card, frames)

        result = alternate(measure_ours, lambda: looped(theirs, frames), rounds)
        yield result.row(name, "Mframes/s", "dpdk-testpmd", dpdk_version(), at_least=TESTPMD_LIMIT)

        def measure(card: Card, other: Process) -> float:
            with at_rest(other):
                return looped(card, frames)

        result = alternate(lambda: measure(exported, process), lambda: measure(theirs, ours), rounds)
        yield result.row(f"{name}, exported", "Mframes/s", "dpdk-testpmd", dpdk_version(), at_least=TESTPMD_LIMIT)


def rows(quick: bool) -> Iterator[Entry]:
    """The rows of the file."""
    before = os.sched_getaffinity(0)
    pin()
    try:
        yield from all_rows(QUICK_ROUNDS if quick else ROUNDS, LOOPED // 10 if quick else LOOPED)
    finally:
        os.sched_setaffinity(0, before)


def all_rows(rounds: int, looped_frames: int) -> Iterator[Entry]:
    """On taps, then memory to memory."""
    try:
        with tap() as name:
            for size in (64, 1500):
                for packed in (False, True):
                    yield from tap_rows(name, size, rounds, packed=packed)
    except PeerMissing as e:
        yield Skipped("tap", str(e))
    for packed in (False, True):
        yield from testpmd_rows(rounds, looped_frames, packed=packed)


def main() -> int:
    """Measure and print."""
    print("\n".join(table(rows(quick=False))))
    return 0


if __name__ == "__main__":
    main()
