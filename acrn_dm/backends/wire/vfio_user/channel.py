"""A vfio-user socket: whole messages out of a byte stream, and messages sent from any thread, each in one piece.

Header and payload are read separately and exactly: that tells to which message descriptors belong.
"""

import array
import select
import socket
import threading
from collections.abc import Sequence

from acrn_dm.backends.wire import stream
from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Message

PIECE = 1 << 16
SEND_MS = 4000  # less than the five seconds after which QEMU gives a connection up


class Channel:
    """Our end of the connection. Owns the socket, and the descriptors of a message that is not complete yet."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._socket = peer
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._size = wire.HEADER.size  # of the message, as far as it is known
        self._sending = threading.Lock()

    @property
    def fd(self) -> int:
        """The socket, to wait on."""
        return self._socket.fileno()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message; *fds*, which stay the caller's, go with its first byte. Any thread. Raises PeerError when
        the peer does not read, PeerGone when it is gone.
        """
        left = memoryview(data)
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._sending:
            while left:
                try:
                    left = left[self._socket.sendmsg([left], beside, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) :]
                    beside = []
                except BlockingIOError:
                    self._wait_for_room()
                except OSError as e:
                    raise stream.gone(e) from e

    def receive(self) -> Message | None:
        """The next message, None while it is incomplete. Raises PeerError or PeerGone."""
        while True:
            while len(self._buffer) < self._size:
                if not self._read(min(PIECE, self._size - len(self._buffer))):
                    return None
            if len(self._buffer) == wire.HEADER.size == self._size:
                self._size += wire.payload_size(self._buffer)
            if len(self._buffer) == self._size:
                return self._complete()

    def shutdown(self) -> None:
        """End the connection; whoever sends is told so. Any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was over

    def close(self) -> None:
        """Close socket and descriptors. Idempotent."""
        close_all(self._fds)
        with self._sending:
            self._socket.close()

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLOUT)
        if not poll.poll(SEND_MS):
            raise PeerError("the peer does not read what it is sent")

    def _read(self, most: int) -> bool:
        """Read up to *most* bytes and what comes with them; False when nothing is there."""
        data = stream.read(self._socket, most, self._fds, wire.MAX_FDS)
        if data is None:
            return False
        self._buffer += data
        return True

    def _complete(self) -> Message:
        message = wire.decode(bytes(self._buffer), self._fds)
        self._buffer.clear()
        self._fds, self._size = [], wire.HEADER.size
        return message
