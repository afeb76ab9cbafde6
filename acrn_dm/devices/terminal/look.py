"""A look at a host's terminal without opening it: opening a serial line raises its modem signals."""

import os
import stat
from pathlib import Path

from acrn_dm.base.files import one_user

DRIVERS = Path("/proc/tty/drivers")  # proc(5): name, node, major, minor or a range of them, type


def problem(path: Path | str) -> str | None:
    """Why the terminal *path* can't be used, as one line."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return f"terminal {path} does not exist"
    except OSError as e:
        return f"terminal {path}: {e.strerror}"
    if not stat.S_ISCHR(status.st_mode) or not is_terminal(status.st_rdev):
        return f"{path} is not a terminal"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"terminal {path} is not accessible"
    user = one_user.holder(path)
    return None if user is None else in_use(path, user)


def in_use(path: Path | str, user: str | None) -> str:
    """What is said of a terminal that another port or program has."""
    return f"terminal {path} is in use by {user or 'another process'}"


def is_terminal(device: int) -> bool:
    """Whether one of the kernel's terminal drivers has this device; where that can't be told, it may be."""
    try:
        lines = DRIVERS.read_text().splitlines()
    except OSError:
        return True
    for line in lines:
        words = line.split()
        if len(words) >= 4 and words[2] == str(os.major(device)):
            first, _, last = words[3].partition("-")
            if int(first) <= os.minor(device) <= int(last or first):
                return True
    return False
