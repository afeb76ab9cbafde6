"""A port on a UNIX stream socket: as a server for one client at a time, or as a client that reconnects."""

import contextlib
import errno
import logging
import os
import socket
import threading
from pathlib import Path
from typing import ClassVar

from acrn_dm.base.sandbox.needs import ACCEPT, CONNECT
from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.devices.virtio_console.backend import PortBackend

log = logging.getLogger(__name__)

RECONNECT_S = 1.0
INPUT_KEPT = 1 << 20  # bytes that clients sent before they left, until the guest reads
LATER = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)  # nobody listens yet


class SocketBackend(PortBackend):
    """The base of server and client: a connection that comes and goes.

    A peer that leaves is let go at once, whether the guest reads or not: the next one waits for its place. What it had
    sent is kept for the guest.
    """

    leaves = True
    pause_s: ClassVar[float] = 0.0  # between the end of a connection and the next one

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label)
        self.path = path
        self._connection: socket.socket | None = None
        self._left = bytearray()  # input of peers that are gone
        self._fd_lock = threading.Lock()  # the connection's descriptor stays open while a vCPU writes to it

    def use(self, connection: socket.socket) -> None:
        """Be connected."""
        connection.setblocking(False)
        self._connection = connection
        self.read_fd = self.write_fd = connection.fileno()
        self.set_connected(True)

    @property
    def plain_input(self) -> bool:
        """Not while something is left of those that are gone."""
        return not self._left

    def receive(self, limit: int) -> bytes:
        """First what came before."""
        if not self._left:
            return super().receive(limit)
        data = bytes(self._left[:limit])
        del self._left[:limit]
        return data

    def ended(self) -> None:
        """The peer closed: both directions end, as its half-closed socket would never be noticed otherwise."""
        self.drop()

    def lost(self, error: OSError) -> None:
        """As ``ended``; a peer that resets is none of our troubles."""
        self.drop()

    def drop(self) -> None:
        """Close the connection and be ready for the next one."""
        super().drop()
        self._keep_input()
        self._close_connection()
        self.begin_soon(self.pause_s)

    def window_size(self) -> None:
        """A socket is no terminal."""

    def emergency(self, byte: bytes) -> None:
        """Write *byte* now or never. Any thread."""
        with self._fd_lock:
            super().emergency(byte)

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._close_connection()

    def _keep_input(self) -> None:
        """Read what the peer left, up to the bound."""
        with contextlib.suppress(OSError):
            while self._connection is not None and (room := INPUT_KEPT - len(self._left)) > 0:
                data = self._connection.recv(room)
                if not data:
                    return
                self._left += data

    def _close_connection(self) -> None:
        with self._fd_lock:
            connection, self._connection = self._connection, None
            self.read_fd = self.write_fd = -1
            if connection is not None:
                connection.close()


class ServerBackend(SocketBackend):
    """The listening side at *path*; while one client is connected, others wait in the kernel."""

    moved_in_c = True
    sandbox_groups = (ACCEPT,)

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label, path)
        self._listener: UnixListener | None = None
        self._acceptor: Acceptor | None = None

    def open(self) -> None:
        """Listen. A socket that was left behind is replaced, any other file is not. Raises ConfigError or HostError."""
        self._listener = UnixListener(self.path, "virtio-console", backlog=1)

    def begin(self) -> None:
        """Wait for a client."""
        if self._listener is not None and self._loop is not None:
            if self._acceptor is None:
                self._acceptor = Acceptor(self._loop, self._listener.socket, self.label, self._accepted)
            self._acceptor.resume()

    def close(self) -> None:
        """Close and remove the socket."""
        super().close()
        if self._acceptor is not None:
            self._acceptor.close()
        if self._listener is not None:
            self._listener.close()

    def _accepted(self, connection: socket.socket) -> None:
        assert self._acceptor is not None
        self._acceptor.pause()
        self.use(connection)


class ClientBackend(SocketBackend):
    """The connecting side: to *path*, once a second again while nobody listens there."""

    moved_in_c = True
    sandbox_groups = (CONNECT,)

    pause_s = RECONNECT_S  # a peer that hangs up at once must not keep the loop busy

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label, path)
        self._complained = False

    def begin(self) -> None:
        """Connect or try later."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            connection.connect(os.fspath(self.path))
        except OSError as e:
            connection.close()
            if e.errno not in LATER and not self._complained:
                self._complained = True
                log.warning("%s: connecting: %s; it is tried again", self.label, e)
            self.begin_soon(self.pause_s)
        else:
            self._complained = False
            self.use(connection)
