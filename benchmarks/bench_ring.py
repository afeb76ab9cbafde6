"""Cost of one descriptor chain on the device side: native, with Python objects, and in plain Python.

``python -m benchmarks.bench_ring`` prints a table and writes ``build/bench-ring.json``. Same set-up as the reference
figures: queue of 256 with EVENT_IDX, two memory regions, 64 chains per refill, handled in batches of 1 or 32; pop,
walk, translate, push, one notification decision per batch. All rows run interleaved in one process, and medians are
compared, because a machine's speed drifts by more than the differences looked for.
"""

import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.model import ModelMemory, ModelSplitRing
from benchmarks.native import BUILD, compiler, native
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Row, alternate

QUEUE_SIZE = 256
REFILL = 64
REGION_BYTES = 64 << 20
HIGH_GPA = 1 << 32
SHAPES = ("1desc", "3desc", "3indirect")
BATCHES = (1, 32)
NATIVE_REFILLS = 2000
OBJECT_REFILLS = 60
MODEL_REFILLS = 6

# ns per chain, on another machine (Zen 3 class at 2.4 GHz, gcc 12): from the project's performance notes, section 1.
# Columns: shape by shape, batch 1 then 32.
C_FLOOR = "reference: hand-written C"
PROOF = "reference: Cython proof"
ACRN = "reference: acrn-dm in C"
REFERENCE = {
    C_FLOOR: (9.1, 5.1, 14.3, 10.8, 17.7, 13.5),
    PROOF: (12.6, 7.9, 20.1, 16.0, 23.0, 19.9),
    ACRN: (15.5, 9.9, 23.1, 17.9, 26.4, 20.8),
    "reference: Cython proof, object per chain": (336.0, 113.4, 322.4, 114.5, 332.0, 122.6),
    "reference: Python with struct": (2163.3, 1541.4, 3156.8, 2935.0, 3769.9, 3305.7),
}
FLOOR = "floor: the bare loop, here"
NATIVE = "native (fr_pop_batch, fr_push)"
OBJECTS = "Python objects (pop_batch, push)"
VIEWS = "Python objects and a memoryview each"
MODEL = "plain Python (the model)"

Cell = tuple[str, int]


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

    def time_native(self, batch: int) -> float:
        """Nanoseconds per chain without a Python object."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, NATIVE_REFILLS, False)
        return result

    def time_floor(self, batch: int) -> float:
        """... of a loop without interface, tracking and stored segments: what this machine can do at best."""
        self.fresh()
        result: float = self.native.time_native(self.driver, batch, NATIVE_REFILLS, True)
        return result

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


def measure() -> dict[str, dict[Cell, float]]:
    """Median ns per chain, by row and by (shape, batch)."""
    module = native()
    benches = {shape: Bench(shape, module) for shape in SHAPES}
    samples: dict[str, dict[Cell, list[float]]] = {row: {} for row in (FLOOR, NATIVE, OBJECTS, VIEWS, MODEL)}
    for _ in range(ROUNDS):
        for shape, bench in benches.items():
            timers = {
                FLOOR: bench.time_floor,
                NATIVE: bench.time_native,
                OBJECTS: bench.time_objects,
                VIEWS: bench.time_views,
                MODEL: bench.time_model,
            }
            for batch in BATCHES:
                for row, timer in timers.items():
                    samples[row].setdefault((shape, batch), []).append(timer(batch))
    return {row: {cell: statistics.median(s) for cell, s in cells.items()} for row, cells in samples.items()}


def rows(quick: bool) -> Iterator[Row]:
    """Native cells beside the bare loop."""
    module, rounds = native(), QUICK_ROUNDS if quick else ROUNDS
    for shape in SHAPES:
        bench = Bench(shape, module)
        for batch in BATCHES:
            ours, floor = functools.partial(bench.time_native, batch), functools.partial(bench.time_floor, batch)
            found = alternate(ours, floor, rounds)
            yield found.row(f"ring, split, {shape} b{batch}", "ns/chain", "the bare loop", compiler())


def table(medians: dict[str, dict[Cell, float]]) -> list[str]:
    """Lines of the printed table."""
    cells = [(shape, batch) for shape in SHAPES for batch in BATCHES]
    lines = [f"{'ns per chain':42}" + "".join(f"{f'{s} b{b}':>15}" for s, b in cells)]
    for row, values in medians.items():
        lines.append(f"{row:42}" + "".join(f"{values[c]:15.1f}" for c in cells))
    for row, figures in REFERENCE.items():
        lines.append(f"{row:42}" + "".join(f"{f:15.1f}" for f in figures))
    lines.append("")
    for row, name in ((OBJECTS, "Python objects"), (NATIVE, "native")):
        ratios = "".join(f"{medians[MODEL][c] / medians[row][c]:14.0f}x" for c in cells)
        lines.append(f"{f'plain Python / {name}':42}{ratios}")
    ours = [medians[NATIVE][c] / medians[FLOOR][c] for c in cells]
    lines.append(f"{'native / floor':42}" + "".join(f"{r:14.2f}x" for r in ours))
    for row in (PROOF, ACRN):
        ratios = "".join(f"{f / g:14.2f}x" for f, g in zip(REFERENCE[row], REFERENCE[C_FLOOR], strict=True))
        lines.append(f"{row + ' / its floor':42}{ratios}")
    lines.append("Reference figures are another machine's: compare ratios to the floor, not nanoseconds.")
    return lines


def main() -> None:
    """Measure, print, write JSON."""
    medians = measure()
    print("\n".join(table(medians)))
    flat = {row: {f"{shape} b{batch}": ns for (shape, batch), ns in cells.items()} for row, cells in medians.items()}
    BUILD.mkdir(exist_ok=True)
    result = {"unit": "ns per chain, median", "rounds": ROUNDS, "ours": flat, "reference": REFERENCE}
    (BUILD / "bench-ring.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
