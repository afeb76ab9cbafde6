"""The socket at which clients are awaited; one is served at a time, the next ones wait in the kernel."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from acrn_dm.errors import ConfigError, HostError
from acrn_dm.export.client import Client
from acrn_dm.export.device import ExportedDevice

BACKLOG = 4


def listen_at(path: Path) -> socket.socket:
    """Listen at *path*. A socket that was left behind is replaced, any other file is not. Raises ConfigError or
    HostError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if path.is_socket():
            _refuse_if_alive(path)
            path.unlink()
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as e:
        listener.close()
        raise HostError.from_os(f"listening at {path}", e) from e
    except ConfigError:
        listener.close()
        raise
    return listener


def inherited(fd: int) -> socket.socket:
    """The UNIX stream socket that came as descriptor *fd*, connected or listening. Raises ConfigError."""
    try:
        given = socket.socket(fileno=fd)
    except OSError as e:
        raise ConfigError(f"no socket: {e.strerror}", option="--fd", value=fd) from e
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM:
        given.detach()
        raise ConfigError("expected a UNIX stream socket", option="--fd", value=fd)
    given.setblocking(False)
    return given


class Server:
    """Serves *exported* at *given*: to one client after another if it listens, else to that one, then calls *done*."""

    def __init__(self, exported: ExportedDevice, given: socket.socket, done: Callable[[], None]) -> None:
        self._exported = exported
        self._done = done
        self._listener: socket.socket | None = None
        self._client: Client | None = None
        if given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._listener = given
            self._wait()
        else:
            self._client = Client(exported, given, self._client_gone)

    def close(self) -> None:
        """Disconnect the client and listen no more. Idempotent."""
        listener, self._listener = self._listener, None
        if self._client is not None:
            self._client.close()
        elif listener is not None:
            self._exported.main_loop.remove(listener.fileno())
        if listener is not None:
            listener.close()

    def _wait(self) -> None:
        if self._listener is not None:
            self._exported.main_loop.add(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):  # it is gone again
            peer, _ = self._listener.accept()
            self._exported.main_loop.remove(self._listener.fileno())
            self._client = Client(self._exported, peer, self._client_gone)

    def _client_gone(self) -> None:
        self._client = None
        if self._listener is not None:
            self._wait()
        else:
            self._done()


def _refuse_if_alive(path: Path) -> None:
    """Raise ConfigError when somebody listens at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.connect(os.fspath(path))
        raise ConfigError("another process listens there", option="--socket-path", value=str(path))
