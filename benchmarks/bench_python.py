"""Speed of a Python thread while a device in the same process runs at full load in C, against its speed alone.

``python -m benchmarks.bench_python`` prints medians and writes ``build/bench-python.json``. It needs two CPUs. Times in
which the thread was ready and had no CPU do not count, so that other processes do not either: what is left is
how long it waited for the GIL.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.ring.layout import RingLayout
from acrn_dm.virtio.native._counters import QueueCounters
from benchmarks.bench_ring import BUILD, native

ROUNDS = 9
SECONDS = 0.2
STEPS = 2000  # between two looks at the clock
QUEUE_SIZE = 256
WANTED = 0.9


def speed() -> float:
    """Steps of a loop in Python per second in which this thread ran or waited for the GIL."""
    steps, start, ready = 0, time.monotonic_ns(), _ready_ns()
    while time.monotonic_ns() - start < SECONDS * 1e9:
        for _ in range(STEPS):
            steps += 1
    return steps / (time.monotonic_ns() - start - (_ready_ns() - ready)) * 1e9


def _ready_ns() -> int:
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1])


class Load:
    """A device's queue at full load on a loop with a thread, while the block lasts; ``chains`` then tells how many."""

    def __init__(self) -> None:
        memory = MemoryMap([(0, bytearray(1 << 20))])
        layout = RingLayout(size=QUEUE_SIZE, desc=0, avail=0x4000, used=0x8000)
        for i in range(QUEUE_SIZE):
            memory.write(16 * i, (0x10000 + 64 * i).to_bytes(8, "little") + (64).to_bytes(4, "little") + b"\2\0\0\0")
        self.ring = SplitRing(memory, size=QUEUE_SIZE, desc=layout.desc, avail=layout.avail, used=layout.used)
        self.counters = QueueCounters(QUEUE_SIZE)
        self.loop = IoLoop("load")
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


def measure() -> dict[str, float]:
    """Medians of rounds that alternate."""
    alone, loaded, rates = [], [], []
    for _ in range(ROUNDS):
        alone.append(speed())
        with Load() as load:
            start = time.monotonic()
            loaded.append(speed())
            rates.append(load.chains / (time.monotonic() - start))
    ratios = [one / other for one, other in zip(loaded, alone, strict=True)]
    return {
        "steps_per_s_alone": statistics.median(alone),
        "steps_per_s_under_load": statistics.median(loaded),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "chains_per_s": statistics.median(rates),
    }


def main() -> int:
    """Exit status: whether it keeps less than 90 %."""
    found = measure()
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-python.json").write_text(json.dumps(found, indent=1))
    for name, value in found.items():
        print(f"{name:24}{value:>16,.3f}")
    return found["ratio"] < WANTED


if __name__ == "__main__":
    sys.exit(main())
