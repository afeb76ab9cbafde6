"""A back-end that connects to its front-end, again and again, as soon as that listens."""

import socket
import threading
import time

from tests.backends.user.peers.peer import Peer

LOOK_S = 0.005


class Caller(Peer):
    """A ``Peer`` that calls at ``path``, unless ``silent``."""

    def _open(self) -> None:
        self.silent = False
        self._over = threading.Event()

    def _next(self) -> socket.socket:
        while not self._over.is_set():
            peer = socket.socket(socket.AF_UNIX)
            if not self.silent and not peer.connect_ex(str(self.path)):
                return peer
            peer.close()
            time.sleep(LOOK_S)
        raise ConnectionAbortedError

    def _end(self) -> None:
        self._over.set()
