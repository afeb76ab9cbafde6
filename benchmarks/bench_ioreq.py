"""An I/O request on the HSM's interface, from posted to answered: the ``hsm`` plugin, and the least that C can do.

``python -m benchmarks.bench_ioreq`` prints a table and writes ``build/bench-ioreq.json``. Both clients run on the
emulated HSM (``lab/hsm``), whose vCPUs post ports, memory and configuration accesses in turn, without a guest between
them. The two take turns, and medians are compared. With ``--boot``, or after a run with it, there is a row for the boot
of a stock kernel in the lab: how many requests it makes and how long it waits for them in all.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.native import compiler
from benchmarks.rows import Alternated, PeerMissing, Row
from lab.hsm.boot import BOOTED, boot_reference_guest
from lab.hsm.build import RigUnavailable, library
from lab.paths import BUILD, ROOT

ROUNDS = 5
REQUESTS = 20480
VCPUS = (1, 8)
PLUGIN, FLOOR = "hsm plugin (Python)", "floor: C, answers at once"
COLUMNS = ("p50_ns", "p90_ns", "p99_ns")

Stats = dict[str, float]
Samples = dict[str, dict[int, list[Stats]]]


def floor() -> Path:
    """The C client, compiled when older than its source."""
    source, target = ROOT / "benchmarks" / "_ioreq_floor.c", BUILD / "bench" / "ioreq_floor"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(target), str(source)], check=True)
    return target


def run(command: Iterable[str], *, preload: Path, requests: int) -> Stats:
    """One client against the storm; what the rig measured."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"RIG_STATS": f"{folder}/stats", "RIG_REPORT": f"{folder}/report"}
        environment = {**os.environ, **files, "LD_PRELOAD": str(preload), "RIG_STORM": str(requests)}
        subprocess.run(list(command), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        report = Path(files["RIG_REPORT"]).read_text()
        if report:
            raise RuntimeError(f"the client breaks the interface's rules: {report}")
        return dict(json.loads(Path(files["RIG_STATS"]).read_text()))


def sample(rounds: int = ROUNDS) -> Samples:
    """Every round's figures, by row and number of vCPUs. Raises RigUnavailable."""
    preload, client = library(), str(floor())
    samples: Samples = {PLUGIN: {}, FLOOR: {}}
    for _ in range(rounds):
        for vcpus in VCPUS:
            commands = {
                PLUGIN: [sys.executable, "-m", "lab.hsm.storm", str(REQUESTS), str(vcpus)],
                FLOOR: [client, str(vcpus)],
            }
            for row, command in commands.items():
                stats = run(command, preload=preload, requests=REQUESTS)
                samples[row].setdefault(vcpus, []).append(stats)
    return samples


def measure() -> dict[str, dict[int, Stats]]:
    """Medians by row and number of vCPUs."""
    return {
        row: {n: {c: statistics.median(s[c] for s in found) for c in COLUMNS} for n, found in cells.items()}
        for row, cells in sample().items()
    }


def rows(quick: bool) -> Iterator[Row]:
    """The plugin beside the floor. Raises PeerMissing where the rig can't be built."""
    try:
        samples = sample(1 if quick else ROUNDS)
    except RigUnavailable as e:
        raise PeerMissing(str(e)) from None
    for vcpus in VCPUS:
        for column in COLUMNS:
            ours, peer = (tuple(s[column] / 1e3 for s in samples[row][vcpus]) for row in (PLUGIN, FLOOR))
            name = f"I/O request, {vcpus} vCPU, {column.removesuffix('_ns')}"
            yield Alternated(ours=ours, peer=peer).row(name, "us", "the least that C can do", compiler())


def boots() -> list[Stats]:
    """What the rig counted in the last boot in the lab."""
    stats = BOOTED / "rig-stats"
    return [json.loads(line) for line in stats.read_text().splitlines()] if stats.exists() else []


def table(medians: dict[str, dict[int, Stats]], booted: list[Stats]) -> list[str]:
    """Lines of the printed table."""
    cells = [(n, c) for n in VCPUS for c in COLUMNS]
    heads = "".join(f"{f'{n} vCPU {c[:3]}':>14}" for n, c in cells)
    lines = [f"{'us from posted to answered':32}{heads}"]
    for row, values in medians.items():
        lines.append(f"{row:32}" + "".join(f"{values[n][c] / 1000:14.1f}" for n, c in cells))
    ratios = "".join(f"{medians[PLUGIN][n][c] / medians[FLOOR][n][c]:13.1f}x" for n, c in cells)
    lines.append(f"{'plugin / floor':32}{ratios}")
    for stats in booted:
        seconds, each = stats["total_ns"] / 1e9, stats["p50_ns"] / 1000
        kinds = f"{stats['pio']} ports, {stats['mmio']} memory, {stats['pcicfg']} configuration"
        lines.append(
            f"boot of a stock kernel in the lab (nested, emulated): {stats['ioreqs']} requests ({kinds}), "
            f"{seconds:.1f} s in all, median {each:.0f} us"
        )
    return lines


def main() -> int:
    """Measure, print, write JSON; 0 also where the rig can't be built."""
    try:
        library()
    except RigUnavailable as e:
        print(f"bench_ioreq: {e}")
        return 0
    if "--boot" in sys.argv:
        boot_reference_guest()
    medians, booted = measure(), boots()
    print("\n".join(table(medians, booted)))
    BUILD.mkdir(exist_ok=True)
    result = {"unit": "ns", "rounds": ROUNDS, "requests": REQUESTS, "medians": medians, "boots": booted}
    (BUILD / "bench-ioreq.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
