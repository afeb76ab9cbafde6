"""The sockets that clients come to: made at a path, handed over as a descriptor, or by systemd."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.base.sockets.unix_listener import UnixListener

FIRST_PASSED = 3  # sd_listen_fds(3)
PASSED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@frozen(kw_only=True)
class Place:
    """A place where the clients of one device come: a path to listen at, or an inherited descriptor."""

    path: Path | None = None
    fd: int = -1

    @contextlib.contextmanager
    def open(self) -> Iterator[socket.socket]:
        """Where clients are awaited, or the one client. Raises ConfigError or HostError."""
        if self.path is None:
            with inherited(self.fd) as given:
                yield given
        else:
            with contextlib.closing(UnixListener(self.path, "--socket-path")) as listener:
                yield listener.socket


def places(paths: Sequence[Path], fds: Sequence[int], count: int, environ: MutableMapping[str, str]) -> list[Place]:
    """A place for each of *count* devices. Raises ConfigError.

    One path for several devices has their numbers appended, from 0 on; without paths and descriptors systemd's are
    taken.
    """
    if len(paths) == 1 < count:
        paths = [Path(f"{paths[0]}{i}") for i in range(count)]
    found = [*(Place(path=path) for path in paths), *(Place(fd=fd) for fd in fds)]
    passed = found or [Place(fd=fd) for fd in _passed(environ)]
    if not passed:
        raise ConfigError("--socket-path=PATH or --fd=FDNUM is needed", usage=True)
    if len(passed) != count:
        raise ConfigError(f"{len(passed)} sockets for {count} device{'s' * (count > 1)}", usage=True)
    if len(set(passed)) != count:
        raise ConfigError("two devices at one socket", usage=True)
    return passed


def _passed(environ: MutableMapping[str, str]) -> range:
    """The descriptors that systemd passed to this process, which are told to no other. Raises ConfigError."""
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()):
        return range(0)
    for name in PASSED:
        environ.pop(name, None)
    if not re.fullmatch("[1-9][0-9]{0,2}", count):
        raise ConfigError("expected the number of sockets", option="LISTEN_FDS", value=count)
    return range(FIRST_PASSED, FIRST_PASSED + int(count))


@contextlib.contextmanager
def inherited(fd: int) -> Iterator[socket.socket]:
    """The UNIX stream socket that came as descriptor *fd*, connected or listening. Raises ConfigError.

    It is non-blocking meanwhile, and afterwards as it came: others may have it, too.
    """
    try:
        given = socket.socket(fileno=fd)
    except OSError as e:
        raise ConfigError(f"no socket: {e.strerror}", option="--fd", value=fd) from e
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM:
        given.detach()
        raise ConfigError("expected a UNIX stream socket", option="--fd", value=fd)
    ours, blocking = os.dup(fd), os.get_blocking(fd)
    given.setblocking(False)
    try:
        yield given
    finally:
        given.close()
        os.set_blocking(ours, blocking)
        os.close(ours)
