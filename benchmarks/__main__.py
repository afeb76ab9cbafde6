"""``make bench``: run the benchmarks of this folder, print their rows and write them to ``build/bench.json``.

``python -m benchmarks [--quick] [NAME...]`` runs those named (``ring`` is ``bench_ring``), all by default; rows of the
others stay in the file as they were.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

import benchmarks
from benchmarks.rows import Entry, PeerMissing, Row, Skipped, table

FILE = Path(__file__).resolve().parents[1] / "build" / "bench.json"
PREFIX = "bench_"

Rows = Callable[[bool], Iterable[Entry]]


def names() -> list[str]:
    """All there are, without the prefix."""
    modules = (m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix(PREFIX) for name in modules if name.startswith(PREFIX))


def run(name: str, rows: Rows, *, quick: bool) -> dict[str, Any]:
    """What the file tells of one benchmark: its rows, what was skipped, and what went wrong, in which case the rows are
    those before.
    """
    entries: list[Entry] = []
    error, began = None, time.monotonic()
    try:
        for entry in rows(quick):
            entries.append(entry)
            print(table([entry])[-1], flush=True)
    except PeerMissing as e:
        entries.append(Skipped(name, str(e)))
        print(table(entries)[-1], flush=True)
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
        print(f"{name}: {error}", file=sys.stderr)
    return {
        "benchmark": name,
        "quick": quick,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 1),
        "rows": [{"benchmark": name, **attrs.asdict(e), "kept": e.kept} for e in entries if isinstance(e, Row)],
        "skipped": [attrs.asdict(e) for e in entries if isinstance(e, Skipped)],
        "error": error,
    }


def merged(before: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The file's content: *runs*, and of those *before* the ones that were not run again."""
    again = {r["benchmark"] for r in runs}
    kept = [r for r in before.get("runs", []) if r["benchmark"] not in again]
    every = sorted(kept + [{k: v for k, v in r.items() if k != "rows"} for r in runs], key=lambda r: r["benchmark"])
    rows = [row for row in before.get("rows", []) if row["benchmark"] not in again]
    rows = sorted(rows + [row for r in runs for row in r["rows"]], key=lambda row: row["benchmark"])
    return {"machine": machine(), "runs": every, "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures are of."""
    known = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": known[0].partition(":")[2].strip() if known else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 1 when a benchmark failed, by an error or (but for --quick) by a limit that a row does not keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split(":")[1].strip())
    parser.add_argument("--quick", action="store_true", help="few rounds: does everything run? Not for figures")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    args = parser.parse_args(arguments)
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    print(table([])[0], flush=True)
    runs = []
    for name in args.names or names():
        runs.append(run(name, importlib.import_module(f"benchmarks.{PREFIX}{name}").rows, quick=args.quick))
    before = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(merged(before, runs), indent=1) + "\n")
    return int(any(r["error"] is not None or not (args.quick or all(row["kept"] for row in r["rows"])) for r in runs))


if __name__ == "__main__":
    sys.exit(main())
