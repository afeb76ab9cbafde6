"""Files that one process at a time uses: kept by flock(2), as other programs keep serial lines (picocom, systemd)."""

import fcntl
import os
import stat
from pathlib import Path

from acrn_dm.base.process import processes


def take(fd: int) -> bool:
    """Keep the file that is open as *fd* until it is closed; False when somebody else has it.

    A file system without such locks is no reason to do without the file.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def holder(path: Path | str) -> str | None:
    """Who keeps *path*, in words; None where nobody does that we may see. No device is opened: a line would notice."""
    try:
        own = os.stat(path)
    except OSError:
        return None
    if stat.S_ISREG(own.st_mode) and _free(path):
        return None
    device = stat.S_ISCHR(own.st_mode)

    def same(other: os.stat_result) -> bool:
        if device:
            return stat.S_ISCHR(other.st_mode) and other.st_rdev == own.st_rdev
        return (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino)

    for pid, number in processes.openers(same):
        if "FLOCK" in processes.fd_information(pid, number):
            return processes.describe(pid)
    return None


def _free(path: Path | str) -> bool:
    """Whether nobody keeps the file of data *path*. Asked of the file itself, as each start has such files; who takes
    it in the same moment would share it with us.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
