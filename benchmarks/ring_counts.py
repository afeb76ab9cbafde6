"""Instructions per descriptor chain of the rings' device side in C, counted by callgrind and kept in the repository.

``python -m benchmarks.ring_counts`` counts the twelve cells of ``bench_ring`` anew and says which moved by more than
two percent from ``ring_counts.json``; the exit status is 1 when one did. After a change that is meant, in either
direction, write the file anew with ``python -m benchmarks.ring_counts --write`` and commit it with the change: what
that costs or saves stands in the diff then. ``tests/benchmarks/test_ring_counts.py`` compares, too. Needs valgrind.

Counts depend on the compilers, gcc and Cython, whose versions stand in the file: with others nothing is compared. Only
what the functions ``handle`` of ``_bench_ring.pyx`` and ``_bench_packed.pyx`` execute, and what they call, is counted:
a batch popped, looked at, pushed and published. ``benchmarks.ring_instructions`` counts more, and takes longer.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks.native import ROOT, compiler, native
from benchmarks.ring_rigs import BATCHES, REFILL, SHAPES, Bench, PackedBench

FILE = Path(__file__).with_name("ring_counts.json")
AGAIN = "if that is meant: python -m benchmarks.ring_counts --write"
SLACK = 0.02
MARK = os.getppid  # a C function that nothing else calls: callgrind begins a new count there
TURN = "__pyx_f_*_handle"
REFILLS = 32  # 2048 chains


@attrs.frozen(kw_only=True)
class Counts:
    """Instructions per chain by cell, and what compiled them."""

    compilers: str
    cells: dict[str, float]


def compilers() -> str:
    """Those here."""
    return f"{compiler()}, Cython {importlib.metadata.version('Cython')}"


def kept() -> Counts:
    """What the file says."""
    return Counts(**json.loads(FILE.read_text()))


def cells() -> Iterator[tuple[str, Bench | PackedBench, int]]:
    """Name, rig and batch of each."""
    module = native()
    for shape in SHAPES:
        rigs: dict[str, Bench | PackedBench] = {"split": Bench(shape, module), "packed": PackedBench(shape)}
        for ring, rig in rigs.items():
            for batch in BATCHES:
                yield f"{ring} {shape} b{batch}", rig, batch


def run_marked() -> None:
    """What runs under callgrind: a count for each cell."""
    gc.disable()
    for _, rig, batch in cells():
        rig.time_native(batch, REFILLS)
        MARK()


def count() -> Counts:
    """Count anew. Raises CalledProcessError, and FileNotFoundError without valgrind."""
    names = [name for name, _, _ in cells()]  # and with that all is compiled
    with tempfile.TemporaryDirectory() as folder:
        options = ["--collect-atstart=no", f"--toggle-collect={TURN}", f"--dump-before={MARK.__name__}"]
        options += ["--combine-dumps=no", f"--callgrind-out-file={folder}/out"]
        command = ["valgrind", "--tool=callgrind", *options, sys.executable, "-m", "benchmarks.ring_counts", "--work"]
        env: dict[str, Any] = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
        found = {name: _total(Path(folder) / f"out.{i + 1}") for i, name in enumerate(names)}
    per_chain = {name: round(n / (REFILLS * REFILL), 1) for name, n in found.items()}
    return Counts(compilers=compilers(), cells=per_chain)


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def moved(before: Counts, now: Counts) -> list[str]:
    """A line for each cell that is new, gone or not within 2 % of what it was."""
    lines = []
    for name in sorted(before.cells.keys() | now.cells.keys()):
        was, found = before.cells.get(name, 0.0), now.cells.get(name, 0.0)
        if abs(found - was) > SLACK * was:
            lines.append(f"{name}: {found:.1f} instructions a chain, {was:.1f} in {FILE.name}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 1 when a count moved, or the file is of other compilers, and is not written anew."""
    parser = argparse.ArgumentParser(description="instructions per descriptor chain, beside those kept")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name} anew")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.work:
        run_marked()
        return 0
    now = count()
    print("\n".join(f"{name:24}{n:8.1f}" for name, n in now.cells.items()))
    if args.write:
        FILE.write_text(json.dumps(attrs.asdict(now), indent=1) + "\n")
        return 0
    before = kept()
    if before.compilers != now.compilers:
        print(f"not compared: {FILE.name} is of {before.compilers}, here is {now.compilers}", file=sys.stderr)
        return 1
    lines = moved(before, now)
    print("\n".join([*lines, AGAIN] if lines else []), file=sys.stderr)
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
