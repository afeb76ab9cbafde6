"""What of this folder is written in C: built into ``build/bench`` when older than its sources."""

import functools
import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
FLAGS = ["-O2", "-fno-tree-slp-vectorize", "-Wall"]  # setup.py's, for ours and for peers
# Else a loop of some ten instructions is up to an eighth slower or faster by where the linker happens to put it.
FLAGS += ["-falign-functions=64", "-falign-loops=32"]
PEERS = sorted((ROOT / "benchmarks").glob("_ring_*.[chp]*"))  # of the rings, in C


@functools.cache
def compiler() -> str:
    """Name and version of the compiler, which is the version of a peer that is built here."""
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def native(name: str = "_bench_ring") -> ModuleType:
    """A module of this folder in C (that with the C driver and the timed loops), built into ``build/`` when older than
    its sources.
    """
    target = BUILD / "bench" / (name + importlib.machinery.EXTENSION_SUFFIXES[0])
    package = ROOT / "acrn_dm"
    sources = [ROOT / "benchmarks" / f"{name}.pyx", package / "_atomics.h", *package.rglob("*.pxd")]
    sources += [*(ROOT / "benchmarks").glob("*.pxd"), *PEERS]
    if not target.exists() or target.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        _build(name, sources[0], target)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(name: str, source: Path, target: Path) -> None:
    from Cython.Build import cythonize  # noqa: PLC0415  (only here is a compiler needed)
    from setuptools import Distribution, Extension  # noqa: PLC0415

    peers = [str(one) for one in PEERS if one.suffix == ".c" and "_ring_peers" in source.read_text()]
    folders = [str(ROOT / "acrn_dm"), str(ROOT / "benchmarks")]
    extension = Extension(name, [str(source), *peers], include_dirs=folders, extra_compile_args=FLAGS)
    modules = cythonize([extension], include_path=[str(ROOT)], build_dir=str(BUILD / "bench"), force=True, quiet=True)
    command: Any = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(target.parent), str(BUILD / "bench" / "temp")
    command.ensure_finalized()
    command.run()
