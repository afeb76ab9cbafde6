"""The socket at which clients of any protocol are awaited. One is served at a time, the first that says something.

Who connects and says nothing holds nothing: it waits beside, with at most ``MAX_WAITING`` others, of which the oldest
silent one makes way for the next; those that have spoken wait for their turn. A client becomes the device's owner by
what front-ends say first (SET_OWNER behind the features, VERSION), and remains it until it leaves, however long its
guest sleeps. One that is not by ``OWNER_S`` makes way when another has something to say.
"""

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Protocol

from acrn_dm.base.events.ioloop import IoLoop, Timer
from acrn_dm.base.sockets.acceptor import Acceptor

log = logging.getLogger(__name__)

MAX_WAITING = 4
OWNER_S = 10.0


class Served(Protocol):
    """The client whose turn it is."""

    @property
    def is_owner(self) -> bool:
        """Whether it has said what makes it the owner."""

    def close(self) -> None:
        """End the connection. Idempotent."""


Serve = Callable[[socket.socket, Callable[[], None]], Served]  # the second is called when the client is gone


class WaitingRoom:
    """The clients at *given*: *serve* gets one after another if it listens, else that one; then *done* is called.

    *protocol* and *first*, which makes an owner, are for messages. Made and used on the thread of *loop*.
    """

    def __init__(
        self, loop: IoLoop, given: socket.socket, serve: Serve, done: Callable[[], None], *, protocol: str, first: str
    ) -> None:
        self._loop = loop
        self._make = serve
        self._done = done
        self._first = first
        self._acceptor: Acceptor | None = None
        self._client: Served | None = None
        self._since = 0.0  # when the client's turn began
        self._timer: Timer | None = None
        self._silent: list[socket.socket] = []  # oldest first
        self._spoken: list[socket.socket] = []  # not watched: it is not their turn
        if given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._acceptor = Acceptor(loop, given, protocol, self._accepted)
        else:
            self._serve(given)

    def close(self) -> None:
        """Disconnect all clients and listen no more. Idempotent."""
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            acceptor.close()
        spoken, self._spoken = self._spoken, []
        for peer in (*self._silent, *spoken):
            self._forget(peer)
            peer.close()
        if self._client is not None:
            self._client.close()

    def _accepted(self, peer: socket.socket) -> None:
        if len(self._silent) + len(self._spoken) >= MAX_WAITING:
            log.info("a client that has said nothing makes way for another")
            oldest = self._silent[0]  # there is one: with none nobody is accepted
            self._forget(oldest)
            oldest.close()
        self._silent.append(peer)
        self._loop.add(peer.fileno(), lambda: self._spoke(peer))

    def _spoke(self, peer: socket.socket) -> None:
        """It said something, or left without a word."""
        self._forget(peer)
        if not _has_said(peer):
            peer.close()
        elif self._client is None:
            self._serve(peer)
        else:
            self._spoken.append(peer)
            if len(self._spoken) == MAX_WAITING and self._acceptor is not None:
                self._acceptor.pause()
            self._look_at_client()

    def _forget(self, peer: socket.socket) -> None:
        if peer in self._silent:
            self._silent.remove(peer)
            self._loop.remove(peer.fileno())

    def _serve(self, peer: socket.socket) -> None:
        self._since = self._loop.clock.monotonic()
        self._client = self._make(peer, self._client_gone)

    def _look_at_client(self) -> None:
        """Somebody waits for its turn; it comes when the client is not the owner by its time."""
        client = self._client
        if client is None or client.is_owner or not self._spoken:
            return
        if self._timer is not None:
            self._timer.cancel()
        left = self._since + OWNER_S - self._loop.clock.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_at_client)
        else:
            log.warning("a client without %s for %g s makes way for another", self._first, OWNER_S)
            client.close()

    def _client_gone(self) -> None:
        self._client = None
        if self._spoken:
            self._serve(self._spoken.pop(0))
            self._look_at_client()
        if self._acceptor is not None:
            self._acceptor.resume()
        elif self._client is None:
            self._done()


def _has_said(peer: socket.socket) -> bool:
    """Whether there is something to read, not just an end."""
    with contextlib.suppress(OSError):
        return bool(peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return False
