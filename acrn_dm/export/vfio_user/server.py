"""The socket at which the client is awaited: one is served at a time, others wait in the kernel."""

import socket
from collections.abc import Callable

from acrn_dm.base.sockets.acceptor import Acceptor
from acrn_dm.export.vfio_user.client import Client
from acrn_dm.export.vfio_user.function import ExportedFunction


class Server:
    """The server of *exported* at *given*: for one client after another if it listens, else for that one; then it calls
    *done*.
    """

    def __init__(self, exported: ExportedFunction, given: socket.socket, done: Callable[[], None]) -> None:
        self._exported = exported
        self._done = done
        self._acceptor: Acceptor | None = None
        self._client: Client | None = None
        if given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._acceptor = Acceptor(exported.main_loop, given, "vfio-user", self._accepted)
        else:
            self._client = Client(exported, given, self._client_gone)

    def close(self) -> None:
        """Disconnect the client and listen no more. Idempotent."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            acceptor.close()
        if self._client is not None:
            self._client.close()

    def _accepted(self, peer: socket.socket) -> None:
        if self._acceptor is not None:
            self._acceptor.pause()
        self._client = Client(self._exported, peer, self._client_gone)

    def _client_gone(self) -> None:
        self._client = None
        if self._acceptor is not None:
            self._acceptor.resume()
        else:
            self._done()
