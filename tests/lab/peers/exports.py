"""Processes of ours that serve devices to another program, for tests with a peer."""

import contextlib
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.backends.user.user_rig import Daemon

PATIENCE_S = 20.0


def export(folder: Path, name: str, text: str, protocol: str = "vhost-user", *more: str) -> Daemon:
    """A process that will serve the device of *text* at ``NAME.sock``, with *more* words."""
    path = folder / f"{name}.sock"
    argv = [sys.executable, "-m", "acrn_dm.export.cli", protocol, text, f"--socket-path={path}", *more]
    return Daemon(argv, path, folder / f"{name}.log")


@contextlib.contextmanager
def started(daemons: Sequence[Daemon]) -> Iterator[None]:
    """All of them, while the block runs."""
    with contextlib.ExitStack() as stack:
        for daemon in daemons:
            daemon.start()
            stack.callback(daemon.kill)
        yield


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """A client of what listens at *path*, while the block runs."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(str(path))
        yield peer
