"""A vhost-user socket: whole messages out of a byte stream, with bounds on everything the peer can choose.

A stream has no message boundaries: what one ``recvmsg`` returns may be half a header. Header and payload are read
separately and exactly, which is also what tells to which message descriptors belong. Nothing here blocks, even on a
socket that the peer sent along and makes a blocking one: each call says MSG_DONTWAIT itself.
"""

import array
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire import stream
from acrn_dm.backends.wire.message import Message, PeerError
from acrn_dm.backends.wire.payload import MAX_REGIONS
from acrn_dm.base.errors import HostError
from acrn_dm.base.sockets.unix_listener import is_deserted

VHOST_USER = "vhost-user"


def problem(path: Path, protocol: str = VHOST_USER) -> str | None:
    """Why nobody can be connected to at *path*, as one line; whoever listens there does not notice."""
    try:
        mode = path.stat().st_mode
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        return f"socket {path}: {reason}; is the {protocol} process running?"
    if not stat.S_ISSOCK(mode):
        return f"{path} is no socket"
    if not os.access(path, os.W_OK):  # unix(7): connect needs to write
        return f"socket {path} is not accessible"
    if is_deserted(path):
        return str(_no_connection(path, protocol, ConnectionRefusedError(errno.ECONNREFUSED, "")))
    return None


def connect(path: Path, protocol: str = VHOST_USER) -> socket.socket:
    """Connect to the socket at *path* without blocking. Raises HostError."""
    peer = None
    try:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        peer.connect(os.fspath(path))
    except OSError as e:
        if peer is not None:
            peer.close()
        raise _no_connection(path, protocol, e) from e
    return peer


def _no_connection(path: Path, protocol: str, error: OSError) -> HostError:
    return HostError.from_os(f"connecting to {path}", error, f"is the {protocol} process running?")


class Channel:
    """One end of a connection. Owns the socket and the descriptors of a message that is not complete yet."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._socket = peer
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._payload_size: int | None = None  # None: the header is not complete

    @property
    def fd(self) -> int:
        """The socket, to wait on."""
        return self._socket.fileno()

    def send(self, code: int, payload: bytes = b"", *, flags: int = 0, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises PeerError when the peer does not read, PeerGone when it is gone."""
        data = wire.encode(code, payload, flags)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = -1
        except OSError as e:
            raise stream.gone(e) from e
        if sent != len(data):  # some messages of at most a few hundred bytes fill no socket whose peer reads
            raise PeerError(f"{wire.name(code)}: the peer does not read what it is sent")

    def reply(self, to: Message, payload: bytes) -> None:
        """Answer *to*. Raises as ``send``."""
        self.send(to.code, payload, flags=wire.REPLY)

    def receive(self) -> Message | None:
        """Return the next message, None while it is incomplete. Raises PeerError or PeerGone."""
        while True:
            missing = self._missing()
            if not missing:
                return self._complete()
            if not self._read(missing):
                return None

    def shutdown(self) -> None:
        """End the connection; the peer sees that at once, the descriptor stays until ``close``."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close socket and descriptors. Idempotent."""
        wire.close_all(self._fds)
        self._socket.close()

    def _missing(self) -> int:
        if self._payload_size is None:
            if len(self._buffer) < wire.HEADER.size:
                return wire.HEADER.size - len(self._buffer)
            self._payload_size = self._check_header()
        return wire.HEADER.size + self._payload_size - len(self._buffer)

    def _check_header(self) -> int:
        code, flags, size = wire.HEADER.unpack_from(self._buffer)
        if flags & wire.VERSION_MASK != wire.VERSION:
            raise PeerError(f"{wire.name(code)} of protocol version {flags & wire.VERSION_MASK}, expected 1")
        if size > wire.MAX_PAYLOAD:
            raise PeerError(f"{wire.name(code)} announces {size} bytes")
        return int(size)

    def _read(self, missing: int) -> bool:
        """Read up to *missing* bytes and what comes with them; False when nothing is there."""
        data = stream.read(self._socket, missing, self._fds, MAX_REGIONS)
        if data is None:
            return False
        self._buffer += data
        return True

    def _complete(self) -> Message:
        code, flags, _ = wire.HEADER.unpack_from(self._buffer)
        message = Message(code=code, flags=flags, payload=bytes(self._buffer[wire.HEADER.size :]), fds=self._fds)
        self._buffer.clear()
        self._fds = []
        self._payload_size = None
        return message
