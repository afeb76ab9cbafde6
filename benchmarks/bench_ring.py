"""Cost of one descriptor chain on the native rings' device side, beside the bare loop and the original's ring steps.

Six cells for each format: chains of one descriptor, of three, and of three in an indirect table, in batches of 1 and 32
(``ring_rigs``); and two cores, with 64 chains in flight between a driver and a device that poll. ``_ring_floor.c`` says
what the bare loop is, ``_ring_original.c`` what of the original is written anew there (it has no packed rings).
"""

import functools
import os
import statistics
import sys
from collections.abc import Callable, Iterator

from benchmarks.native import compiler, native
from benchmarks.ring_rigs import BARE, BATCHES, OURS, SHAPES, Bench, PackedBench
from benchmarks.rows import QUICK_ROUNDS, Entry, Row, Skipped, alternate, table

ROUNDS = 25  # short ones: a disturbance spoils few
REFILLS = 300
APART_ROUNDS = 9
APART_CHAINS = 64 * 15_000
MEAN, WORST = 1.25, 1.5  # of the bare loop's time
GAIN, NO_LOSS = 1.25, 1.0  # over the original's speed
APART = 1.3
FLOOR, ORIGINAL = "the bare loop", "the original's ring steps"

Timer = Callable[[int, int], float]  # batch, refills: ns per chain


def rate(timer: Timer, batch: int) -> float:
    """Million chains a second."""
    return 1e3 / timer(batch, REFILLS)


def cells(ring: str, benches: dict[str, Bench] | dict[str, PackedBench], rounds: int) -> Iterator[Row]:
    """The six cells beside the bare loop, and the mean of their ratios."""
    ratios = []
    for shape, bench in benches.items():
        for batch in BATCHES:
            timers = [functools.partial(timer, batch, REFILLS) for timer in (bench.time_native, bench.time_floor)]
            found = alternate(timers[0], timers[1], rounds)
            row = found.row(f"ring, {ring}, {shape} b{batch}", "ns/chain", FLOOR, compiler(), at_most=WORST)
            ratios.append(row.ratio or 0.0)
            yield row
    yield Row(f"ring, {ring}, mean of the six ratios", "times", statistics.mean(ratios), at_most=MEAN)


def against_original(benches: dict[str, Bench], rounds: int) -> Iterator[Row]:
    """The split cells beside the original's steps."""
    ratios = []
    for shape, bench in benches.items():
        for batch in BATCHES:
            rates = [functools.partial(rate, timer, batch) for timer in (bench.time_native, bench.time_original)]
            found = alternate(rates[0], rates[1], rounds)
            name = f"ring, split, {shape} b{batch}, against the original"
            row = found.row(name, "Mchains/s", ORIGINAL, compiler(), at_least=NO_LOSS)
            ratios.append(row.ratio or 0.0)
            yield row
    yield Row("ring, split, mean of the six against the original", "times", statistics.mean(ratios), at_least=GAIN)


def apart(benches: dict[str, Bench], rounds: int, chains: int) -> Iterator[Entry]:
    """A driver and a device on a core each."""
    for shape, bench in benches.items():
        name = f"ring, split, {shape}, two cores"
        if len(os.sched_getaffinity(0)) < 2:
            yield Skipped(name, "there is only one CPU")
            continue
        timers = [functools.partial(bench.time_apart, who, chains) for who in (OURS, BARE)]
        yield alternate(timers[0], timers[1], rounds).row(name, "ns/chain", FLOOR, compiler(), at_most=APART)


def rows(quick: bool) -> Iterator[Entry]:
    """All of them."""
    module = native()
    split = {shape: Bench(shape, module) for shape in SHAPES}
    rounds = QUICK_ROUNDS if quick else ROUNDS
    yield from cells("split", split, rounds)
    yield from cells("packed", {shape: PackedBench(shape) for shape in SHAPES}, rounds)
    yield from against_original(split, rounds)
    yield from apart(split, QUICK_ROUNDS if quick else APART_ROUNDS, 64 * 300 if quick else APART_CHAINS)


def main() -> int:
    """Exit status: 1 when a limit is not kept."""
    found = list(rows(quick="--quick" in sys.argv))
    print("\n".join(table(found)))
    return int(not all(row.kept for row in found if isinstance(row, Row)))


if __name__ == "__main__":
    sys.exit(main())
