"""One QEMU process: found, started so that it cannot outlive us, ended without leftovers; and the console logs."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import LabUnavailable
from .paths import CONSOLES

PROGRAM = "qemu-system-x86_64"
_DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]  # even if we are killed and no clean-up runs
_NOISE = "TCG doesn't support requested feature"  # the CPU model has more than software emulation gives


def program() -> str:
    """The path of QEMU; LabUnavailable when there is none."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise LabUnavailable(f"{PROGRAM} is not installed (package qemu-system-x86)")
    return found


@contextlib.contextmanager
def running(arguments: Sequence[str], *, log: Path, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """QEMU with these arguments for as long as the context lasts; what it says itself goes to ``log``."""
    argv = [program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_DIE_WITH_US, *argv] if shutil.which(_DIE_WITH_US[0]) else argv,
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


def console_log(name: str) -> Path:
    """The file for a console's output, emptied. Below build/lab, hence at the same path inside the outer VM."""
    CONSOLES.mkdir(parents=True, exist_ok=True)
    path = CONSOLES / f"{name}.log"
    path.write_bytes(b"")
    return path


def console_tails(prefix: str = "", *, lines: int = 40, since: float = 0.0) -> dict[str, str]:
    """The last lines of each console log written to after ``since`` (a time as in st_mtime), by the console's name."""
    tails = {}
    for path in sorted(CONSOLES.glob(f"{prefix}*.log")):
        if path.stat().st_size and path.stat().st_mtime >= since:
            text = path.read_bytes().decode(errors="replace").replace("\r\n", "\n")
            worth_showing = [line for line in text.splitlines() if _NOISE not in line]
            if worth_showing:
                tails[path.stem] = "\n".join(worth_showing[-lines:])
    return tails
