"""Where the lab keeps its things: below build/lab of the checkout, wherever that is."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "build" / "lab"  # writable from inside the outer VM, at this same path
CONSOLES = LAB / "consoles"
GUEST_SCRIPTS = Path(__file__).resolve().parent / "guest"


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lab's lock file: two test runs of one checkout must not fetch or build the same thing at once."""
    LAB.mkdir(parents=True, exist_ok=True)
    with (LAB / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
