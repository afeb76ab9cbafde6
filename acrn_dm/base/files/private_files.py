"""Files and folders that are for this user only, whatever the umask, and whatever lies in their place."""

import contextlib
import errno
import os
import stat
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700


def make_folder(path: Path) -> None:
    """Make *path* and those above it that are missing, each with 0700; what exists stays as it is. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was quicker
            folder.mkdir(FOLDER_MODE)
            folder.chmod(FOLDER_MODE)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def open_or_make(path: Path | str, flags: int) -> int:
    """A descriptor of the file *path*; one that is made is 0600, and not made where a symbolic link points to.

    What is there is opened as the user says, through links, too: /dev/stdout is one. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
    os.fchmod(fd, FILE_MODE)
    return fd


def open_log(path: Path | str) -> int:
    """A descriptor that appends to the file *path*, made if it is missing; its mode becomes 0600.

    Raises OSError: a symbolic link is not followed (ELOOP), and what is no file is not written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags, FILE_MODE)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        os.fchmod(fd, FILE_MODE)
    except OSError:
        os.close(fd)
        raise
    return fd
