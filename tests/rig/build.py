"""Compiles the emulated HSM: ``src/*.c`` to build/rig/librig.so of the checkout, when a source is newer than it.

``python -m tests.rig.build`` does that and prints the library's path.
"""

import fcntl
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
BUILD = Path(__file__).resolve().parents[2] / "build" / "rig"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-format-zero-length")


class RigUnavailable(Exception):
    """The rig can't be built here; the message says why."""


def library() -> Path:
    """Path of the library, compiled if need be. Raises RigUnavailable without a compiler or the kernel's headers."""
    target = BUILD / "librig.so"
    files = sorted(SOURCES.iterdir())
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists() or any(file.stat().st_mtime > target.stat().st_mtime for file in files):
            _compile([file for file in files if file.suffix == ".c"], target)
    return target


def _compile(sources: list[Path], target: Path) -> None:
    if shutil.which("gcc") is None:
        raise RigUnavailable("no emulated HSM: gcc is not installed")
    if not Path("/usr/include/linux/acrn.h").exists():
        raise RigUnavailable("no emulated HSM: linux/acrn.h is not installed (linux-libc-dev)")
    partial = target.with_suffix(".part")
    subprocess.run(["gcc", *FLAGS, *WARNINGS, "-o", str(partial), *map(str, sources), "-lpthread", "-ldl"], check=True)
    partial.rename(target)


if __name__ == "__main__":
    print(library())
