"""Listening UNIX sockets: for this user only, never through a symbolic link, and never in another's place."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.sockets.paths import path_problem

MODE = 0o600  # unix(7): connecting needs permission to write. Who may connect may end the machine, or be its console
BACKLOG = 4
LISTED, ACCEPTS = Path("/proc/net/unix"), 1 << 16  # of this network namespace; the flag of a listening socket


class UnixListener:
    """A stream socket that listens at *path*. *option* is who says so, for messages.

    A socket that nobody listens on, left behind by a process that was killed, is replaced; nothing else is removed.
    """

    def __init__(self, path: Path, option: str | None = None, *, backlog: int = BACKLOG) -> None:
        """Raises ConfigError where the path can't be used, and HostError."""
        why = path_problem(path) or _remove_stale(path)
        if why is not None:
            raise ConfigError(why, option=option, value=str(path))
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._inode: tuple[int, int] | None = None
        try:
            self._bind()
            self.socket.listen(backlog)
        except OSError as e:
            self.close()
            raise HostError.from_os(f"listening at {path}", e) from e

    def close(self) -> None:
        """Listen no more and remove the path, if it is still ours. Idempotent."""
        self.socket.close()
        inode, self._inode = self._inode, None
        with contextlib.suppress(OSError):
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == inode:
                self.path.unlink()

    def _bind(self) -> None:
        """Until ``listen`` nobody can connect; so there is no moment when another user could."""
        os.fchmod(self.socket.fileno(), MODE)  # what bind makes has these bits at most
        self.socket.bind(os.fspath(self.path))  # a symbolic link is not followed: EADDRINUSE
        made = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(made)
            self._inode = (status.st_dev, status.st_ino)
            if stat.S_IMODE(status.st_mode) != MODE:  # a umask that takes bits from the owner, too
                os.chmod(f"/proc/self/fd/{made}", MODE)
        finally:
            os.close(made)


def problem(path: Path) -> str | None:
    """Why nobody can listen at *path*, as far as looking tells; changes nothing."""
    why = path_problem(path)
    if why is not None:
        return why
    if not path.parent.is_dir():
        return f"directory {path.parent} does not exist"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"directory {path.parent} is not writable"
    return _in_the_way(path)


def is_alive(path: Path) -> bool:
    """Whether somebody listens at the socket *path*, or we can't tell."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def is_deserted(path: Path) -> bool:
    """Whether the socket *path* is there and nobody listens. Who does is not disturbed if the kernel lists him: some
    serve one client and end.
    """
    with contextlib.suppress(OSError):
        for line in LISTED.read_text(errors="surrogateescape").splitlines()[1:]:
            words = line.split(maxsplit=7)
            if len(words) == 8 and int(words[3], 16) & ACCEPTS and os.path.realpath(words[7]) == os.path.realpath(path):
                return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED


def _in_the_way(path: Path) -> str | None:
    """What is there already, and stays."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None  # not there, or bind will say what is wrong
    if not stat.S_ISSOCK(mode):
        return "is there already, and is no socket"
    return "somebody listens there already" if is_alive(path) else None


def _remove_stale(path: Path) -> str | None:
    """Remove a socket that nobody listens on; say what is there otherwise."""
    why = _in_the_way(path)
    if why is None:
        with contextlib.suppress(OSError):
            path.unlink()
    return why
