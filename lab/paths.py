"""Where the lab keeps its things: below build/ of the checkout, wherever that is. No other module of the lab knows."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
LAB = BUILD / "lab"  # writable from inside the outer VM, at this same path
CONSOLES = LAB / "consoles" / os.environ.get("LAB_PART", "")  # a test run has parts with an outer VM each


@contextmanager
def exclusive() -> Iterator[None]:
    """The lab's lock file, held: two test runs of one checkout must not fetch or build the same thing at once."""
    LAB.mkdir(parents=True, exist_ok=True)
    with (LAB / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def empty_scratch(folder: str, test: str) -> Path:
    """An empty folder below build/lab for the test of that name."""
    scratch = LAB / folder / re.sub(r"\W+", "-", test)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch
