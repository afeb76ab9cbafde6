"""``python -m tools.rings.fuzz``: coverage-guided fuzzing of the native rings under gcc's sanitizers, ten minutes.

Builds the package a second time (``build/ring-fuzz``, with -fsanitize=address,undefined and trace-pc), and has
``acrn_dm.ring.trial._fuzz`` run what it makes of the corpus, ``tests/ring/trial/corpus.txt``: a line of hex for each
input. Inputs that reach something new join the corpus with ``--keep``. Exit status 1 with the input of what was found.
"""

import argparse
import ctypes
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "ring-fuzz"
CORPUS = ROOT / "tests" / "ring" / "trial" / "corpus.txt"
COVERAGE = BUILD / "coverage.so"
SANITIZE = "-fsanitize=address,undefined"
CFLAGS = f"-O1 -g -fno-omit-frame-pointer {SANITIZE} -fno-sanitize-recover=undefined -fsanitize-coverage=trace-pc"
SETUP = """
from pathlib import Path
from Cython.Build import cythonize
from setuptools import Extension, setup
sources = [Path("acrn_dm/_fastring.pyx"), *Path("acrn_dm/ring").rglob("*.pyx")]
modules = [Extension(".".join(p.with_suffix("").parts), [str(p)], include_dirs=["acrn_dm"]) for p in sources]
setup(name="rings", ext_modules=cythonize(modules, language_level=3))
"""
STEP, MOST_STEPS = 4, 64  # bytes of a step behind the first byte, and how many there are at most
ROUND = bytes.fromhex("01000001 08000000 0a000100 0b000000 0c000000")  # offer, pop, push, publish, ask for kicks
SECONDS = 600.0


def build() -> None:
    """The package with instrumented rings, and the counter of edges, where they are older than the sources."""
    stamp, package = BUILD / "stamp", ROOT / "acrn_dm"
    sources = [p for kind in ("pyx", "pxd", "h", "py") for p in package.rglob(f"*.{kind}")]
    sources += [Path(__file__), Path(__file__).with_name("_coverage.c")]
    if stamp.exists() and all(p.stat().st_mtime <= stamp.stat().st_mtime for p in sources):
        return
    print("building the rings with sanitizers", flush=True)
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(package, BUILD / "lib" / "acrn_dm", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    (BUILD / "lib" / "acrn_dm" / "__init__.py").write_text("")  # what it imports is not built here
    source = Path(__file__).with_name("_coverage.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(COVERAGE), str(source)], check=True)
    flags = {"CFLAGS": CFLAGS, "LDFLAGS": SANITIZE}
    command = [sys.executable, "-c", SETUP, "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=BUILD / "lib", env=os.environ | flags, check=True)
    stamp.touch()


def run_inside(arguments: Sequence[str]) -> int:
    """This file again, as the process that has the instrumented package."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    environment = os.environ | {
        "LD_PRELOAD": ":".join([str(COVERAGE), *libraries]),
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",  # leaks: Python's own at exit
        "PYTHONMALLOC": "malloc",  # so that guest memory has its red zones
        "PYTHONPATH": str(BUILD / "lib"),
    }
    return subprocess.run(
        [sys.executable, "-P", __file__, "--inside", *arguments], env=environment, check=False
    ).returncode


def mutate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input made of others."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 6)):
        at = 1 + STEP * rng.randrange(max(1, len(data) // STEP))
        kind = rng.randrange(6)
        if kind == 0:
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at:at] = bytes([rng.randrange(16), *rng.randbytes(STEP - 1)])
        elif kind == 3:
            del data[at : at + STEP * rng.randint(1, 4)]
        elif kind == 4:
            data[at:at] = data[at : at + STEP * rng.randint(1, 8)]
        else:
            data[at:] = rng.choice(corpus)[at:]
    return bytes(data[: 1 + STEP * MOST_STEPS]) or b"\0"


def inside(seconds: float, seed: int, keep: bool) -> int:
    """The loop: run, see what is new, keep that."""
    from acrn_dm.ring.trial._fuzz import RingFuzz  # noqa: PLC0415  (the instrumented one, which only this process has)

    coverage, target, rng = ctypes.CDLL(str(COVERAGE)), RingFuzz(), random.Random(seed)
    corpus = [bytes.fromhex(line) for line in CORPUS.read_text().split()] if CORPUS.exists() else []
    corpus += [bytes([choice]) + ROUND * 4 for choice in range(64)]  # each format, features and size: there and back
    current, begin, runs, found = BUILD / "current", time.monotonic(), 0, 0
    queue, fresh = list(corpus), []
    with current.open("wb", buffering=0) as file:
        while time.monotonic() < begin + seconds or queue:
            data = queue.pop() if queue else mutate(rng, corpus)
            file.seek(0)
            file.write(data)
            file.truncate()
            coverage.begin()
            wrong = target.run(data)
            runs += 1
            if coverage.end() and runs > len(corpus):
                fresh.append(data)
                corpus.append(data)
            if wrong:
                found += 1
                print(f"the ring did what number {wrong} of _fuzz.pyx names: {data.hex()}", flush=True)
                break
    took = time.monotonic() - begin
    print(f"{runs} runs in {took:.0f} s ({runs / took:.0f} a second), seed {seed}; {coverage.edges()} edges,")
    print(f"{len(corpus)} inputs, of which {len(fresh)} are new; {found} findings")
    if keep:
        CORPUS.parent.mkdir(parents=True, exist_ok=True)
        CORPUS.write_text("".join(f"{data.hex()}\n" for data in sorted(least(coverage, target, corpus))))
    return int(found > 0)


def least(coverage: ctypes.CDLL, target: object, corpus: Sequence[bytes]) -> list[bytes]:
    """The shortest inputs that show all that *corpus* shows."""
    kept: list[bytes] = []
    coverage.forget()
    for data in sorted(set(corpus), key=len):
        coverage.begin()
        target.run(data)  # type: ignore[attr-defined]
        if coverage.end():
            kept.append(data)
    return kept


def main() -> int:
    """Build, run, say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.rings.fuzz", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="write the corpus anew, with what is new")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(given.seconds, given.seed, given.keep)
    build()
    status = run_inside([a for a in sys.argv[1:] if a != "--inside"])
    if status and (BUILD / "current").exists():
        print(f"the last input: {(BUILD / 'current').read_bytes().hex()}")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
