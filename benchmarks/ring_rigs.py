"""Rings with a driver at C speed, in RAM of their own, that devices take turns on: ours, the bare loop, the original's.

The set-up is that of the reference figures: queue of 256 with EVENT_IDX, two memory regions, 64 chains per refill,
handled in batches; pop, walk, translate, push, one notification decision per batch.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from acrn_dm._fastring import MemoryMap, PackedRing, SplitRing
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.model import ModelMemory, ModelSplitRing
from acrn_dm.ring.packed.layout import packed_layout
from benchmarks.native import native

QUEUE_SIZE = 256
REFILL = 64
REGION_BYTES = 4 << 20
HIGH_GPA = 1 << 32
SHAPES = ("1desc", "3desc", "3indirect")
BATCHES = (1, 32)
OURS, BARE, THE_ORIGINAL = range(3)  # who serves
NATIVE_REFILLS = 2000
OBJECT_REFILLS = 60
MODEL_REFILLS = 6


class Bench:
    """One shape's RAM, with a native and a plain Python device to take turns on it."""

    def __init__(self, shape: str, native_module: Any) -> None:
        self.regions = [(0, bytearray(REGION_BYTES)), (HIGH_GPA, bytearray(REGION_BYTES))]
        self.memory = MemoryMap(self.regions)
        self.layout = RingLayout.at(0x1000, QUEUE_SIZE)
        self.native = native_module
        self.shape = shape
        self.fresh()

    def fresh(self) -> None:
        """Start over with empty rings and indices of 0."""
        self.memory.write(self.layout.desc, bytes(self.layout.end - self.layout.desc))
        size, desc, avail, used = self.layout.size, self.layout.desc, self.layout.avail, self.layout.used
        self.ring = SplitRing(self.memory, size=size, desc=desc, avail=avail, used=used, event_idx=True, indirect=True)
        self.driver = self.native.Driver(self.ring, self.shape)

    def time_native(self, batch: int, refills: int = NATIVE_REFILLS) -> float:
        """Nanoseconds per chain without a Python object."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, refills, OURS)
        return result

    def time_floor(self, batch: int, refills: int = NATIVE_REFILLS) -> float:
        """... of the bare loop (``_ring_floor.c``): what this machine can do at best."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, refills, BARE)
        return result

    def time_original(self, batch: int, refills: int = NATIVE_REFILLS) -> float:
        """... of the original's ring steps (``_ring_original.c``)."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, refills, THE_ORIGINAL)
        return result

    def time_apart(self, who: int, chains: int) -> float:
        """... with a driver on one core that keeps 64 chains in flight and the device on another, both polling.

        Raises RuntimeError when one of them found what the other did not write.
        """
        self.fresh()
        cpus = sorted(os.sched_getaffinity(0))

        def on(cpu: int, call: Callable[..., Any], *args: Any) -> Any:
            os.sched_setaffinity(0, {cpu})  # of this thread
            return call(*args)

        with ThreadPoolExecutor(2) as pool:
            served = pool.submit(on, cpus[-1], self.native.serve, self.driver, REFILL // 2, chains, who)
            driven: float = pool.submit(on, cpus[0], self.native.drive, self.driver, chains).result()
        if served.result() != self.native.found(self.driver):
            raise RuntimeError("the device did not find what the driver made available")
        return driven

    def time_objects(self, batch: int) -> float:
        """... with a Chain object each."""
        self.fresh()
        ring = self.ring

        def handle() -> None:
            for _ in range(REFILL // batch):
                for chain in ring.pop_batch(batch):
                    ring.push(chain, chain.writable_bytes)
                ring.publish()

        return self._time(handle, OBJECT_REFILLS)

    def time_views(self, batch: int) -> float:
        """... with a Chain object and a memoryview per segment."""
        self.fresh()
        ring = self.ring

        def handle() -> None:
            for _ in range(REFILL // batch):
                for chain in ring.pop_batch(batch):
                    chain.readable()
                    chain.writable()
                    ring.push(chain, chain.writable_bytes)
                ring.publish()

        return self._time(handle, OBJECT_REFILLS)

    def time_model(self, batch: int) -> float:
        """... in plain Python."""
        self.fresh()
        ring = ModelSplitRing(ModelMemory(self.regions), self.layout, event_idx=True, indirect=True)

        def handle() -> None:
            for _ in range(REFILL // batch):
                for chain in ring.pop_batch(batch):
                    ring.push(chain, chain.writable_bytes)
                ring.publish()

        return self._time(handle, MODEL_REFILLS)

    def _time(self, handle: Callable[[], None], refills: int) -> float:
        total = 0
        for _ in range(refills):
            self.driver.refill()
            start = time.perf_counter_ns()
            handle()
            total += time.perf_counter_ns() - start
            if not self.driver.collect():
                raise RuntimeError("the device side did not return what the driver made available")
        return total / (refills * REFILL)


class PackedBench:
    """One shape's RAM with a packed ring in it."""

    def __init__(self, shape: str) -> None:
        self.native: Any = native("_bench_packed")
        self.memory = MemoryMap([(0, bytearray(REGION_BYTES)), (HIGH_GPA, bytearray(REGION_BYTES))])
        self.layout = packed_layout(0x1000, QUEUE_SIZE)
        self.shape = shape
        self.fresh()

    def fresh(self) -> None:
        """Start over with an empty ring."""
        lay = self.layout
        self.memory.write(lay.desc, bytes(lay.end - lay.desc))
        parts = {"desc": lay.desc, "driver": lay.avail, "device": lay.used}
        self.ring = PackedRing(self.memory, size=QUEUE_SIZE, **parts, event_idx=True, indirect=True)
        self.driver = self.native.Driver(self.ring, self.shape)

    def time_native(self, batch: int, refills: int = NATIVE_REFILLS) -> float:
        """Nanoseconds per chain without a Python object."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, refills, False)
        return result

    def time_floor(self, batch: int, refills: int = NATIVE_REFILLS) -> float:
        """... of the bare loop."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, refills, True)
        return result
