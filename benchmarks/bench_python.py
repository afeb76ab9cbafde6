"""Speed of a Python thread while a device in the same process runs at full load in C, against its speed alone; and that
of the device, against its own without the thread.

``python -m benchmarks.bench_python`` prints medians. It needs two CPUs. Times in
which the thread was ready and had no CPU do not count, so that other processes do not either: what is left is
how long it waited for the GIL.
"""

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.ring.layout import RingLayout
from acrn_dm.virtio.native._counters import QueueCounters
from benchmarks.native import native
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Row, alternate, table

SECONDS = 0.2
STEPS = 2000  # between two looks at the clock
QUEUE_SIZE = 256
WANTED = 0.9
LOOP = "load"
HALF = 0.5  # of a device's own speed: one that takes the GIL once a batch has a third of it


def speed() -> float:
    """Steps of a loop in Python per second in which this thread ran or waited for the GIL."""
    steps, start, ready = 0, time.monotonic_ns(), _ready_ns()
    while time.monotonic_ns() - start < SECONDS * 1e9:
        for _ in range(STEPS):
            steps += 1
    return steps / (time.monotonic_ns() - start - (_ready_ns() - ready)) * 1e9


def _ready_ns(thread: str = "thread-self") -> int:
    return int(Path("/proc", thread, "schedstat").read_text().split()[1])


class Load:
    """A device's queue at full load on a loop with a thread, while the block lasts; ``chains`` then tells how many."""

    def __init__(self) -> None:
        memory = MemoryMap([(0, bytearray(1 << 20))])
        layout = RingLayout(size=QUEUE_SIZE, desc=0, avail=0x4000, used=0x8000)
        for i in range(QUEUE_SIZE):
            memory.write(16 * i, (0x10000 + 64 * i).to_bytes(8, "little") + (64).to_bytes(4, "little") + b"\2\0\0\0")
        self.ring = SplitRing(memory, size=QUEUE_SIZE, desc=layout.desc, avail=layout.avail, used=layout.used)
        self.counters = QueueCounters(QUEUE_SIZE)
        self.loop = IoLoop(LOOP)
        self.kick, self.call = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        self.plane = native("_bench_plane").Treadmill()

    def __enter__(self) -> "Load":
        fds = {"kick_fd": self.kick, "call_fd": self.call}
        self.plane.start(self.ring, self.loop.poll, self.counters, **fds)
        self.plane.fill()
        self.loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        self.plane.stop()
        self.plane.detach()
        self.loop.close()
        os.close(self.kick)
        os.close(self.call)

    @property
    def chains(self) -> int:
        """Returned so far."""
        returned = self.counters.read()["returned"]
        assert isinstance(returned, int)
        return returned


def speed_under_load() -> float:
    """As ``speed``, while a device runs at full load."""
    with Load():
        return speed()


def device_beside(what: Callable[[], object]) -> float:
    """Chains per second of the device at full load while this thread does *what*, of the time in which the device's
    thread ran or waited for the GIL.
    """
    with Load() as load:
        thread = f"self/task/{next(t.native_id for t in threading.enumerate() if t.name == LOOP)}"
        chains, start, ready = load.chains, time.monotonic_ns(), _ready_ns(thread)
        what()
        return (load.chains - chains) / (time.monotonic_ns() - start - (_ready_ns(thread) - ready)) * 1e9


def rows(quick: bool) -> Iterator[Row]:
    """The thread's speed under load beside that alone, and the load's, for a device that stands still costs nothing."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    found = alternate(speed_under_load, speed, rounds)
    name, version = "the thread alone", platform.python_version()
    yield found.row("Python thread beside a device", "steps/s", name, version, at_least=WANTED)
    loads = alternate(lambda: device_beside(speed), lambda: device_beside(lambda: time.sleep(SECONDS)), rounds)
    yield loads.row("... the device meanwhile", "chains/s", "the device alone", "", at_least=HALF)


def main() -> int:
    """Exit status: whether it keeps less than 90 %."""
    found = list(rows(quick=False))
    print("\n".join(table(found)))
    return int(not all(row.kept for row in found))


if __name__ == "__main__":
    sys.exit(main())
