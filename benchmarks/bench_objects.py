"""What Python objects cost on the device side of a ring: with a chain object, with views, and in plain Python.

``python -m benchmarks.bench_objects`` prints a table and writes ``build/bench-objects.json``. All rows run interleaved
in one process, and medians are compared, because a machine's speed drifts by more than the differences looked for.
"""

import json
import platform
import statistics
from collections.abc import Iterator

from benchmarks.native import BUILD, native
from benchmarks.ring_rigs import BATCHES, SHAPES, Bench
from benchmarks.rows import QUICK_ROUNDS, ROUNDS, Row, alternate

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
    """A chain object each beside the model."""
    module = native()
    for shape in SHAPES:
        bench = Bench(shape, module)
        for batch in BATCHES:
            found = alternate(
                lambda b=bench, n=batch: b.time_objects(n),  # type: ignore[misc]
                lambda b=bench, n=batch: b.time_model(n),  # type: ignore[misc]
                QUICK_ROUNDS if quick else ROUNDS,
            )
            name = f"chain objects in Python, {shape} b{batch}"
            yield found.row(name, "ns/chain", "plain Python", platform.python_version(), at_most=0.5)


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


def main() -> int:
    """Measure, print, write JSON."""
    medians = measure()
    print("\n".join(table(medians)))
    flat = {row: {f"{shape} b{batch}": ns for (shape, batch), ns in cells.items()} for row, cells in medians.items()}
    BUILD.mkdir(exist_ok=True)
    result = {"unit": "ns per chain, median", "rounds": ROUNDS, "ours": flat, "reference": REFERENCE}
    (BUILD / "bench-objects.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    main()
