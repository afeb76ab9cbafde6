"""Instructions per descriptor chain on the device side, counted by callgrind: what a change to the ring really costs.

``python -m benchmarks.ring_instructions`` prints a table and writes ``build/ring-instructions.json``; with ``--against
FILE``, such a JSON from another tree, also how much more each cell takes, and ends with 1 when one is over the limit.
Unlike nanoseconds, the counts are the same on a busy machine. Needs valgrind; it is no part of ``make bench``.

One process does all the work under callgrind, which begins a new count at each call of getppid. Every cell is run at
two sizes: their difference has no set-up in it. The driver's own share is counted likewise and taken off.
"""

import argparse
import functools
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.native import BUILD, ROOT, native
from benchmarks.ring_rigs import BATCHES, REFILL, SHAPES, Bench, PackedBench

MARK = os.getppid  # a C function that nothing else calls
SMALL, LARGE = 4, 20  # refills
LIMIT = 0.03

DRIVER = "driver (taken off below)"
NATIVE = "native (fr_pop_batch, fr_push)"
OBJECTS = "Python objects (pop_batch, push)"
PACKED_DRIVER = "packed: driver (taken off below)"
PACKED = "packed: native (fp_pop_batch, fp_push)"
EITHER = "packed: native, by the calls for either format"
PACKED_OBJECTS = "packed: Python objects"
PACKED_SERVED = "packed: as VbsU serves"
SERVED = "as VbsU serves: read, write, kicks off and on"

Work = Callable[[int], None]  # for so many refills


def _packed(bench: PackedBench, batch: int, refills: int) -> None:
    bench.native.time_native(bench.driver, batch, refills, False)


def _either(bench: PackedBench, batch: int, refills: int) -> None:
    native("_bench_either").serve(bench.ring, bench.driver, batch, refills)


def _refill_packed(bench: PackedBench, refills: int) -> None:
    for _ in range(refills):
        bench.driver.refill()


def _refill(bench: Bench, refills: int) -> None:
    for _ in range(refills):
        bench.driver.refill()


def _native(bench: Bench, batch: int, refills: int) -> None:
    bench.native.time_native(bench.driver, batch, refills, 0)


def _objects(bench: Bench | PackedBench, batch: int, refills: int) -> None:
    ring = bench.ring
    for _ in range(refills):
        bench.driver.refill()
        for _ in range(REFILL // batch):
            for chain in ring.pop_batch(batch):
                ring.push(chain, chain.writable_bytes)
            ring.publish()


def _served(bench: Bench | PackedBench, batch: int, refills: int) -> None:
    ring = bench.ring
    for _ in range(refills):
        bench.driver.refill()
        for _ in range(REFILL // batch):
            ring.disable_kicks()
            for chain in ring.pop_batch(batch):
                chain.read(16)
                chain.writable()
                if chain.writable_bytes:
                    chain.write(b"\0")
                ring.push(chain)
            ring.publish()
            ring.enable_kicks()


def cells() -> Iterator[tuple[str, str, Work]]:
    """(row, column, work) of everything that is counted."""
    module = native()
    for shape in SHAPES:
        yield DRIVER, shape, functools.partial(_refill, Bench(shape, module))
        for batch in BATCHES:
            column = f"{shape} b{batch}"
            for row, work in ((NATIVE, _native), (OBJECTS, _objects), (SERVED, _served)):
                yield row, column, functools.partial(work, Bench(shape, module), batch)
    for shape in SHAPES:
        yield PACKED_DRIVER, shape, functools.partial(_refill_packed, PackedBench(shape))
        for batch in BATCHES:
            column = f"{shape} b{batch}"
            rows = ((PACKED, _packed), (EITHER, _either), (PACKED_OBJECTS, _objects), (PACKED_SERVED, _served))
            for row, work in rows:
                yield row, column, functools.partial(work, PackedBench(shape), batch)


def run_marked() -> None:
    """What runs under callgrind: three counts for each cell, of which the first warms up."""
    gc.disable()
    for _, _, work in cells():
        for refills in (1, SMALL, LARGE):
            MARK()
            work(refills)
        MARK()


def count() -> dict[str, dict[str, float]]:
    """Instructions per chain, by row and column. Raises CalledProcessError."""
    for name in ("_bench_ring", "_bench_packed", "_bench_either"):
        native(name)  # compiled outside callgrind
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--dump-before={MARK.__name__}", "--combine-dumps=no", f"--callgrind-out-file={folder}/out"]
        command = ["valgrind", "--tool=callgrind", *options, sys.executable, "-m", __spec__.name, "--work"]
        env = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
        counts = [_total(Path(folder) / f"out.{i}") for i in range(1, 1 + len(list(Path(folder).glob("out.*"))))]
    result: dict[str, dict[str, float]] = {}
    for i, (row, column, _) in enumerate(cells()):
        small, large = counts[4 * i + 2], counts[4 * i + 3]  # counts[4 * i] ends where the cell begins
        per_chain = (large - small) / ((LARGE - SMALL) * REFILL)
        driver = result.get(PACKED_DRIVER if row.startswith("packed") else DRIVER, {}).get(column.split()[0], 0.0)
        result.setdefault(row, {})[column] = per_chain - driver
    return result


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def table(counts: dict[str, dict[str, float]], before: dict[str, dict[str, float]] | None) -> list[str]:
    """Lines of the printed table."""
    lines = []
    for row, values in counts.items():
        lines.append(f"{row:48}" + "".join(f"{column:>14}" for column in values))
        lines.append(f"{'  instructions per chain':48}" + "".join(f"{n:14.1f}" for n in values.values()))
        if before is not None:
            was = before.get(row, values)
            lines.append(f"{'  before':48}" + "".join(f"{was[column]:14.1f}" for column in values))
            lines.append(f"{'  change':48}" + "".join(f"{n / was[column] - 1:+14.2%}" for column, n in values.items()))
    return lines


def main() -> int:
    """Count, print, write JSON; 1 when a cell takes over 3 % more instructions than in the tree compared with."""
    parser = argparse.ArgumentParser(description="instructions per descriptor chain, counted by callgrind")
    parser.add_argument("--against", type=Path, metavar="FILE", help="ring-instructions.json of another tree")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        run_marked()
        return 0
    before = None if args.against is None else json.loads(args.against.read_text())
    counts = count()
    print("\n".join(table(counts, before)))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "ring-instructions.json").write_text(json.dumps(counts, indent=2) + "\n")
    if before is None:
        return 0
    return int(
        any(
            n > before[row][column] * (1 + LIMIT)
            for row, of in counts.items()
            if row in before
            for column, n in of.items()
        )
    )


if __name__ == "__main__":
    sys.exit(main())
