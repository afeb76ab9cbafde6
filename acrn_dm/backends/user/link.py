"""The connection to one vhost-user back-end, as long as it lasts.

Conversations run one at a time: ``run`` waits for the end (control threads), ``begin`` does not (main loop). Between
them the back-end has nothing to say, so whatever arrives then is an error. All under the ``ConversationLock``.
"""

import contextlib
import functools
import select
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.backends.user.exchange import Exchange, Talk
from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire.channel import Channel
from acrn_dm.backends.wire.message import Message, PeerError, PeerGone
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import READ, Timer

T = TypeVar("T")

TIME_LIMIT_S = 10.0  # for one conversation, however many messages it has
ONCE = READ | select.EPOLLONESHOT  # a handler that has to wait for the lock must not be called again and again


class Watched:
    """A channel that the main loop listens to. *ready* is called under the conversation lock."""

    def __init__(self, conversations: ConversationLock, channel: Channel, ready: Callable[[], None]) -> None:
        self.channel = channel
        self._conversations = conversations
        self._ready = ready
        self._open = True
        self._fd = channel.fd
        conversations.loop.add(self._fd, self._on_ready, events=ONCE)

    def _on_ready(self) -> None:
        self._conversations.run_on_loop(self._serve)

    def _serve(self) -> None:
        if self._open:
            self._ready()
        if self._open:
            self._conversations.loop.modify(self._fd, ONCE)

    def close(self) -> None:
        """End the connection; the descriptor is closed by the loop, when it has forgotten it. Idempotent."""
        if self._open:
            self._open = False
            self.channel.shutdown()
            self._conversations.loop.call_soon(self.forget)

    def forget(self) -> None:
        """Close the descriptor. Main thread. Idempotent."""
        self._open = False
        if self.channel.fd >= 0:
            self._conversations.loop.remove(self._fd)
            self.channel.close()


class Link:
    """One connection. *lost* is called when the connection ends by itself, *notice* for messages of the back-end."""

    def __init__(
        self, conversations: ConversationLock, lost: Callable[[HostError], None], notice: Callable[[Message], int]
    ) -> None:
        self._conversations = conversations
        self._lost = lost
        self._notice = notice
        self._main: Watched | None = None
        self._back: Watched | None = None
        self._retired: list[Watched] = []
        self._exchange: Exchange[Any] | None = None
        self._done: Callable[[Any], None] = lambda _: None
        self._expiry: Timer | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._main is not None

    @property
    def fd(self) -> int:
        """The connection's socket, -1 without one."""
        return -1 if self._main is None else self._main.channel.fd

    @property
    def busy(self) -> bool:
        """A conversation begun on the main loop is not over."""
        return self._exchange is not None

    def connect(self, peer: socket.socket) -> None:
        """*peer* is the connection, which ``run`` or ``begin`` go on with."""
        self._main = Watched(self._conversations, Channel(peer), self._ready)

    def open_back_channel(self) -> socket.socket:
        """Make a channel for the back-end's requests; returns its end, which the caller closes. Raises HostError."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as e:
            raise HostError.from_os("making a channel for the back-end's requests", e) from e
        self._back = Watched(self._conversations, Channel(ours), self._back_ready)
        return theirs

    def run(self, talk: Talk[T]) -> T:
        """Have *talk* and wait for its end. Raises HostError, mostly PeerError or PeerGone. Whatever it raises, the
        connection is closed then: nobody would know what is to be said next.
        """
        self.settle()
        exchange = Exchange(self._channel(), talk)
        try:
            return exchange.finish(TIME_LIMIT_S)
        except BaseException:
            exchange.abandon()
            self.drop()
            raise

    def settle(self) -> None:
        """Wait for the end of what ``begin`` began, and of what that led to. Failure is told to *lost* as always."""
        while self._exchange is not None:
            self._guarded(functools.partial(self._finish, self._exchange))

    def begin(self, talk: Talk[T], done: Callable[[T], None]) -> None:
        """Have *talk* on the main loop; *done* is called with its result."""
        self._done = done
        exchange = self._exchange = Exchange(self._channel(), talk)
        loop = self._conversations.loop
        self._expiry = loop.call_later(
            TIME_LIMIT_S, lambda: self._conversations.run_on_loop(lambda: self._expire(exchange))
        )
        self._guarded(self._advance)

    def drop(self) -> None:
        """Close the connection, if there is one."""
        exchange = self._take_exchange()
        if exchange is not None:
            exchange.abandon()
        for watched in (self._main, self._back):
            if watched is not None:
                watched.close()
                self._retired.append(watched)
        self._main = self._back = None
        self._retired = [watched for watched in self._retired if watched.channel.fd >= 0]

    def close(self) -> None:
        """Close everything, also what the loop has not got round to closing. Main thread."""
        self.drop()
        for watched in self._retired:
            watched.forget()
        self._retired.clear()

    def _channel(self) -> Channel:
        if self._main is None:
            raise PeerGone("not connected")
        return self._main.channel

    def _ready(self) -> None:
        self._guarded(self._advance if self._exchange is not None else self._unasked)

    def _unasked(self) -> None:
        message = self._channel().receive()
        if message is not None:
            message.close()
            raise PeerError(f"unasked message {message.code}")

    def _advance(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.advance():
            self._conclude(exchange)

    def _finish(self, exchange: Exchange[Any]) -> None:
        exchange.finish(TIME_LIMIT_S)
        self._conclude(exchange)

    def _conclude(self, exchange: Exchange[Any]) -> None:
        self._take_exchange()
        self._done(exchange.result)

    def _take_exchange(self) -> Exchange[Any] | None:
        exchange, self._exchange = self._exchange, None
        if self._expiry is not None:
            self._expiry.cancel()
        return exchange

    def _expire(self, exchange: Exchange[Any]) -> None:
        if self._exchange is exchange:
            self._fail(exchange.silence(TIME_LIMIT_S))

    def _back_ready(self) -> None:
        self._guarded(self._serve_back)

    def _serve_back(self) -> None:
        """One message of the back-end; more wait for the loop's next turn, behind everybody else's."""
        assert self._back is not None
        channel = self._back.channel
        try:
            message = channel.receive()
        except PeerGone:  # it may give up its channel; its connection says whether it is still there
            back, self._back = self._back, None
            back.close()
            self._retired.append(back)
            return
        if message is None:
            return
        with contextlib.closing(message):
            verdict = self._notice(message)
            if message.needs_reply:
                channel.reply(message, wire.U64.pack(verdict))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HostError as e:
            self._fail(e)

    def _fail(self, error: HostError) -> None:
        self.drop()
        self._lost(error)
