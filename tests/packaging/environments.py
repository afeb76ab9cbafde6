"""Programs, and distributions, in an environment of a test's own."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
GENERATED = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "build")


def run(*command: str | Path, folder: Path) -> str:
    """The output of a program that ends well, with nothing of our own environment's but the path, and the C that
    Cython has made of this tree's sources.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "CFLAGS": "-O0", "PIP_NO_INDEX": "1"}
    environment["CYTHON_CACHE_DIR"] = str(ROOT / "build" / "cython")
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Distributions that *names* need here, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def link(distribution: str, folder: Path) -> None:
    """Put what is installed here of *distribution* into *folder*."""
    installed = importlib.metadata.distribution(distribution)
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        (folder / top).symlink_to(Path(str(installed.locate_file(top))))
