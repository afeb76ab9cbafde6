"""What the tests with real vhost-user processes share: starting and killing them, a driver that keeps a disk busy."""

import contextlib
import hashlib
import os
import random
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.base.events.eventfd import drain
from acrn_dm.ring.driver import DriverRing
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import DriverQueue

START_S = 20.0
PATIENCE_S = 60.0
SECTOR = 512
IN, OUT = 0, 1
HEADER = struct.Struct("<IIQ")
EVENTFD_FULL = (1 << 64) - 2  # the highest count there is


@attrs.define(eq=False)
class Daemon:
    """A process that serves a socket. ``restart`` may be called as soon as it is dead."""

    argv: Sequence[str]
    socket: Path
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *, wait: bool = True) -> None:
        """Start it; with *wait* until it listens at its socket."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while wait and not listens(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.argv[0]} did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)


def listens(path: Path) -> bool:
    """Whether somebody listens at *path*; asking by connecting would be noticed."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if words[-1] == str(path) and words[3] == "00010000":  # __SO_ACCEPTCON
            return True
    return False


def storage_daemon(folder: Path, image: Path, *, queues: int = 1) -> Daemon:
    """qemu-storage-daemon with *image* as a vhost-user-blk export."""
    socket = folder / "blk.sock"
    export = f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on"
    argv = ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={image}"]
    return Daemon([*argv, "--export", f"{export},num-queues={queues}"], socket, folder / "daemon.log")


def eventually(machine: SimMachine, done: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Let *machine* run until *done*. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        machine.settle()


@attrs.define(eq=False)
class DiskLoad:
    """Keeps *depth* requests of *block* bytes in flight. A slot is the place of one request's buffers."""

    machine: SimMachine
    driver: VirtioDriver
    block: int
    depth: int = 64
    on_progress: Callable[[int], None] = lambda completed: None
    completed: int = 0
    _slots: list[int] = attrs.field(factory=list, init=False)
    _busy: dict[int, tuple[int, int]] = attrs.field(factory=dict, init=False)  # head -> slot address, block number

    def __attrs_post_init__(self) -> None:
        heap = self.machine.heap
        self._slots = [heap.take(4096 + self.block) for _ in range(self.depth)]

    @property
    def queue(self) -> DriverQueue:
        return self.driver.queue(0)

    def in_flight(self) -> list[int]:
        """Heads of the requests that are not in the used ring, oldest first."""
        return unanswered(self.queue.ring, self._busy)

    def run(self, kind: int, blocks: Sequence[int], content: Callable[[int], bytes]) -> None:
        """Do one request per number in *blocks*; what is read must be *content*."""
        todo = iter(blocks)
        left = len(blocks)
        idle = time.monotonic()
        while left:
            sent = self._fill(kind, todo, content)
            if sent:
                self.queue.ring.publish()
                self.queue.kick()
            self.machine.settle()
            done = self._collect(kind, content)
            left -= done
            self.completed += done
            if sent or done:
                idle = time.monotonic()
                self.on_progress(self.completed)
            assert time.monotonic() - idle < PATIENCE_S, (
                f"{left} requests are stuck; device failures: {self.machine.failures}"
            )

    def _fill(self, kind: int, todo: "Sequence[int] | object", content: Callable[[int], bytes]) -> int:
        sent = 0
        memory, ring = self.machine.memory, self.queue.ring
        while self._slots:
            number = next(todo, None)  # type: ignore[call-overload]
            if number is None:
                break
            slot = self._slots.pop()
            memory.write(slot, HEADER.pack(kind, 0, number * self.block // SECTOR))
            memory.write(slot + 64, b"\xff")
            data = (slot + 4096, self.block)
            if kind == OUT:
                memory.write(data[0], content(number))
                head = ring.add_chain([(slot, HEADER.size), data], [(slot + 64, 1)])
            else:
                head = ring.add_chain([(slot, HEADER.size)], [data, (slot + 64, 1)])
            self._busy[head] = (slot, number)
            sent += 1
        return sent

    def _collect(self, kind: int, content: Callable[[int], bytes]) -> int:
        memory = self.machine.memory
        used = self.queue.ring.used()
        for head, _ in used:
            slot, number = self._busy.pop(head)
            assert memory.read(slot + 64, 1) == b"\0", f"block {number} failed"
            if kind == IN:
                digest = hashlib.blake2b(memory.read(slot + 4096, self.block)).digest()
                assert digest == hashlib.blake2b(content(number)).digest(), f"block {number} is not what was written"
            self._slots.append(slot)
        self.queue.ring.enable_interrupts()
        return len(used)


def unanswered(ring: DriverRing, sent: Iterable[int]) -> list[int]:
    """Those of the heads in *sent*, which the driver has not seen return, that are not in the used ring either."""
    count = (ring.used_idx() - ring.last_used) & 0xFFFF
    used = {ring.used_element(ring.last_used + i)[0] for i in range(count)}
    return [head for head in sent if head not in used]


def block_content(seed: int, block: int) -> Callable[[int], bytes]:
    """Content of block number n: different for each, the same each time."""
    noise = random.Random(seed).randbytes(2 * block)

    def content(number: int) -> bytes:
        start = number * 8191 % block
        return number.to_bytes(8, "little") + noise[start : start + block - 8]

    return content


@contextlib.contextmanager
def jammed(eventfd: int) -> Iterator[None]:
    """An eventfd as a hostile peer leaves it: full, and blocking for whoever writes it."""
    os.set_blocking(eventfd, False)
    drain(eventfd)
    os.eventfd_write(eventfd, EVENTFD_FULL)
    os.set_blocking(eventfd, True)
    try:
        yield
    finally:
        drain(eventfd)
        os.set_blocking(eventfd, False)


def returns(work: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether *work* comes to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def open_descriptors() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))
