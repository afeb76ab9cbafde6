"""Bytes and descriptors out of a UNIX stream socket, for each protocol whose messages bring descriptors along."""

import array
import errno
import socket

from acrn_dm.backends.wire.message import PeerError, PeerGone, close_all
from acrn_dm.base.errors import HostError

FD_SIZE = array.array("i").itemsize
RECEIVE_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)  # the last: another thread has closed it


def read(peer: socket.socket, most: int, fds: list[int], limit: int) -> bytes | None:
    """Up to *most* bytes that *peer* has, None while there are none; never blocks.

    Descriptors that come along are added to *fds*, whose owner is the caller. Raises PeerError, with all of *fds*
    closed, for more than *limit*, or when the kernel could not pass one on; PeerGone at the end of the connection.
    """
    try:
        data, ancillary, flags, _ = peer.recvmsg(most, socket.CMSG_SPACE(limit * FD_SIZE), RECEIVE_FLAGS)
    except BlockingIOError:
        return None
    except OSError as e:
        raise gone(e) from e
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            came = array.array("i")
            came.frombytes(content[: len(content) - len(content) % FD_SIZE])
            fds += came
    if flags & socket.MSG_CTRUNC or len(fds) > limit:
        close_all(fds)
        raise PeerError(f"descriptors were lost: one message brought more than {limit}, or too many are open")
    if not data:
        raise PeerGone("the connection was closed")
    return data


def gone(error: OSError) -> HostError:
    """What *error* of a socket means: PeerGone at the end of the connection, else PeerError."""
    if error.errno in GONE:
        return PeerGone("the connection was closed")
    return PeerError("the connection failed", err=error.errno)
