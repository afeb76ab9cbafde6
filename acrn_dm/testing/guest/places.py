"""The place of guests' files: packages, kernels, images, consoles. One folder, which the outer VM can write to."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOME, CONSOLES = "ACRN_DM_CACHE", "ACRN_DM_CONSOLES"  # variables of the environment


def home() -> Path:
    """The folder: $ACRN_DM_CACHE, else acrn-dm in the user's cache ($XDG_CACHE_HOME, ~/.cache)."""
    if own := os.environ.get(HOME):
        return Path(own).absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "acrn-dm"


def consoles() -> Path:
    """The folder of the consoles' logs: $ACRN_DM_CONSOLES, which is to lie below ``home``, else a part of that."""
    return Path(os.environ.get(CONSOLES) or home() / "consoles")


@contextmanager
def exclusive() -> Iterator[None]:
    """The lock file in there, held: two test runs must not fetch or build the same thing at once."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
