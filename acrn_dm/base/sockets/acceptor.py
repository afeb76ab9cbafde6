"""Clients accepted on a loop. Everything here that listens does it by one of these.

Without a descriptor to accept with, a listening socket stays ready: a loop that went on trying would do nothing else.
So nobody is accepted for ``RETRY_S`` then; who connects waits in the kernel.
"""

import errno
import logging
import socket
from collections.abc import Callable

from acrn_dm.base.events.ioloop import READ, IoLoop

log = logging.getLogger(__name__)

RETRY_S = 1.0
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Acceptor:
    """The way from *listener* to *accepted*, which gets each client as a non-blocking socket, on the loop's thread.
    *where* is for messages. Does not own *listener*.
    """

    def __init__(
        self, loop: IoLoop, listener: socket.socket, where: str, accepted: Callable[[socket.socket], object]
    ) -> None:
        listener.setblocking(False)
        self._loop, self._listener, self._where, self._accepted = loop, listener, where, accepted
        self._wanted = True
        self._short = False
        self._closed = False
        loop.add(listener.fileno(), self._ready)

    def pause(self) -> None:
        """Let clients wait in the kernel from now on. On the loop's thread. Idempotent, as ``resume`` is."""
        self._want(False)

    def resume(self) -> None:
        """Accept clients again. On the loop's thread."""
        self._want(True)

    def close(self) -> None:
        """Accept nobody any more; when this returns *accepted* is not running (unless we are in it). Any thread."""
        with self._loop.held():
            if not self._closed:
                self._closed = True
                self._loop.remove(self._listener.fileno())

    def _want(self, wanted: bool) -> None:
        self._wanted = wanted
        self._watch()

    def _watch(self) -> None:
        if not self._closed:
            self._loop.modify(self._listener.fileno(), READ if self._wanted and not self._short else 0)

    def _ready(self) -> None:
        if not self._wanted:
            return  # paused by another handler of the same round
        try:
            client, _ = self._listener.accept()
        except OSError as e:  # also when it has gone again
            if e.errno in SHORTAGE:
                self._wait(e)
            return
        client.setblocking(False)
        self._accepted(client)

    def _wait(self, error: OSError) -> None:
        log.error("%s: accepting a client: %s", self._where, error.strerror)
        self._short = True
        self._watch()
        self._loop.call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._short = False
        self._watch()
