"""The emulated HSM's library: ``src/**/*.c`` compiled to build/rig/librig.so of the checkout, when a source is newer.

``python -m lab.hsm.build`` does that and prints the library's path.
"""

import fcntl
import shutil
import subprocess
from pathlib import Path

from lab.paths import BUILD

SOURCES = Path(__file__).resolve().parent / "src"
HOME = BUILD / "rig"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-iquote", str(SOURCES))
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-format-zero-length")


class RigUnavailable(Exception):
    """The rig can't be built here; the message says why."""


def library() -> Path:
    """Path of the library, compiled if need be. Raises RigUnavailable without a compiler or the kernel's headers."""
    target = HOME / "librig.so"
    files = sorted(file for file in SOURCES.rglob("*") if file.is_file())
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
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
