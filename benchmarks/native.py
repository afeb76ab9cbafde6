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
    sources = [ROOT / "benchmarks" / f"{name}.pyx", package / "_fastring.pxd", package / "_atomics.h"]
    sources += (package / "ring" / "native").rglob("*.pxd")
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

    extension = Extension(
        name, [str(source)], include_dirs=[str(ROOT / "acrn_dm")], extra_compile_args=["-O2", "-Wall"]
    )
    modules = cythonize([extension], include_path=[str(ROOT)], build_dir=str(BUILD / "bench"), force=True, quiet=True)
    command: Any = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(target.parent), str(BUILD / "bench" / "temp")
    command.ensure_finalized()
    command.run()
