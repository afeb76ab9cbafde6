"""The things of the host that a port will use: looked at before anything is open."""

import os
import stat
from pathlib import Path

from acrn_dm.base.files import one_user
from acrn_dm.base.files.claims import Claim, path_key, socket_claim
from acrn_dm.base.process import processes
from acrn_dm.devices.terminal import look
from acrn_dm.devices.virtio_console.config import PortConfig


def problem(port: PortConfig) -> str | None:
    """Why the host's side of *port* can't be opened, as one line."""
    path = port.path
    if path is None:
        return None
    if port.type == "tty":
        return look.problem(path)
    if not path.parent.is_dir():
        return f"directory {path.parent} does not exist"
    if port.type == "file":
        return _file_problem(path)
    if port.role == "server":
        from acrn_dm.base.sockets import unix_listener  # noqa: PLC0415

        why = unix_listener.problem(path)
        return None if why is None else f"socket {path}: {why}"
    return f"{path} is no socket" if path.exists() and not path.is_socket() else None


def claims(port: PortConfig) -> list[Claim]:
    """What only one port can have: a terminal, a file, a socket that is made."""
    path = port.path
    if path is None or (port.type == "socket" and port.role == "client"):
        return []
    if port.type == "tty":
        return [Claim(key=path_key(path), what=f"terminal {path}")]
    if port.type == "file":
        return [Claim(key=path_key(path), what=f"file {path}")] if _is_plain(path) else []
    return [socket_claim(path)]


def _is_plain(path: Path) -> bool:
    """A file, there or to be made; many may write to /dev/null."""
    return path.is_file() or not path.exists()


def _file_problem(path: Path) -> str | None:
    if not path.exists():
        return None if os.access(path.parent, os.W_OK | os.X_OK) else f"directory {path.parent} is not writable"
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind) or stat.S_ISSOCK(kind):
        return f"{path} is a {'directory' if stat.S_ISDIR(kind) else 'socket'}, not a file"
    if not os.access(path, os.W_OK):
        return f"file {path} is not writable"
    if stat.S_ISFIFO(kind) and os.geteuid() == 0 and not _has_reader(path):  # who else can't see all readers
        return f"FIFO {path} has no reader"
    user = one_user.holder(path) if stat.S_ISREG(kind) else None
    return None if user is None else f"file {path} is in use by {user}"


def _has_reader(path: Path) -> bool:
    """Found without opening it: its reader would take the closing for the end."""
    own = path.stat()
    for pid, number in processes.openers(lambda s: (s.st_dev, s.st_ino) == (own.st_dev, own.st_ino)):
        words = processes.fd_information(pid, number).split()
        if "flags:" in words and int(words[words.index("flags:") + 1], 8) & os.O_ACCMODE != os.O_WRONLY:
            return True
    return False
