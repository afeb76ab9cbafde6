"""One QEMU process: found, started so that it cannot outlive us, ended without leftovers."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessUnavailable

PROGRAM = "qemu-system-x86_64"
_DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]  # even if we are killed and no clean-up runs


def program() -> str:
    """The path of QEMU; HarnessUnavailable when there is none."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise HarnessUnavailable(f"{PROGRAM} is not installed (package qemu-system-x86)")
    return found


def ending_with_us(argv: Sequence[str]) -> list[str]:
    """The words that start *argv* so that it can't outlive the thread that does, where that can be had."""
    return [*_DIE_WITH_US, *argv] if shutil.which(_DIE_WITH_US[0]) else [*argv]


@contextlib.contextmanager
def running(arguments: Sequence[str], *, log: Path, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """QEMU with these arguments for as long as the context lasts; what it says itself goes to ``log``."""
    argv = [program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ending_with_us(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
