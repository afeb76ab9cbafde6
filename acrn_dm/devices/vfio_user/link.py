"""The connection to one vfio-user server: our commands, one at a time, and the requests of the server's.

Who waits for an answer reads the socket himself, on whichever thread he is, and serves what the server asks for
meanwhile: it may need the guest's memory before it can answer. While nobody waits the loop reads. An answer has to come
in ``ANSWER_S``; a server that is late, or breaks the protocol, has no connection any more.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Sequence

from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.backends.wire.message import PeerError, PeerGone
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.channel import Channel
from acrn_dm.backends.wire.vfio_user.message import Command, Message, Refused
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import READ, IoLoop

ANSWER_S = 10.0  # as a conversation of vhost-user
MESSAGES_PER_TURN = 64
ONCE = READ | select.EPOLLONESHOT
IDS = 1 << 16
BRING_DESCRIPTORS = (  # answers that may
    Command.VERSION,
    Command.DEVICE_GET_REGION_INFO,
    Command.DEVICE_GET_REGION_IO_FDS,
)
POSTED = (Command.REGION_WRITE, Command.DEVICE_SET_IRQS)

Serve = Callable[[Message], bytes]  # returns the answer's payload; raises Refused


class Link:
    """One connection; *serve* does what the server asks for. *lost* is called once, under no lock of the caller's but
    those that it came with, when the connection ends by itself.

    Any thread that holds no lock which *serve* or the loop's handlers need.
    """

    def __init__(self, loop: IoLoop, serve: Serve, lost: Callable[[HostError], None]) -> None:
        self.most = wire.MAX_TRANSFER  # bytes that one message may move
        self.most_fds = 1  # descriptors that one message may bring
        self._lock = ConversationLock(loop)
        self._serve = serve
        self._lost = lost
        self._channel: Channel | None = None
        self._ended: list[Channel] = []  # of which the loop has to be rid first
        self._next = 0
        self._posted = 0  # messages that nobody waits for, less the answers that came to them

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._channel is not None

    def connect(self, peer: socket.socket) -> None:
        """*peer* is the connection, from now on."""
        self._channel = Channel(peer)
        self._posted = 0
        self._lock.loop.add(self._channel.fd, self._ready, events=ONCE)

    def ask(
        self, command: Command, payload: bytes = b"", fds: Sequence[int] = (), *, brought: list[int] | None = None
    ) -> bytes:
        """The answer to *command*, whose descriptors are added to *brought* and the caller's then. Raises Refused for
        an error, and HostError at the connection's end.
        """
        with self._lock.hold():
            channel = self._connection()
            try:
                self._lock.loop.modify(channel.fd, 0)  # the answer is none of the loop's
                ident = self._send(channel, command, payload, fds, wire.COMMAND)
                answer = self._answer(channel, ident, command, brought)
                self._lock.loop.modify(channel.fd, ONCE)
            except HostError as e:
                self._fail(e)
                raise
        if answer.flags & wire.ERROR:
            raise Refused(f"{command.name} was refused", answer.error or errno.EINVAL)
        return answer.payload

    def post(self, command: Command, payload: bytes) -> None:
        """Have *command* done, without an answer. Raises HostError at the connection's end."""
        with self._lock.hold():
            channel = self._connection()
            try:
                self._send(channel, command, payload, (), wire.NO_REPLY)
                self._posted += 1
            except HostError as e:
                self._fail(e)
                raise

    def broken(self, text: str) -> PeerError:
        """An answer was wrong, as *text* says: the connection ends. Returns the error to raise."""
        error = PeerError(text)
        with self._lock.hold():
            self._fail(error)
        return error

    def close(self) -> None:
        """End the connection; *lost* is not called. Control threads. Idempotent."""
        with self._lock.hold():
            self._end()
        self._forget()

    def _connection(self) -> Channel:
        if self._channel is None:
            raise PeerGone("the connection was closed")
        return self._channel

    def _send(self, channel: Channel, command: Command, payload: bytes, fds: Sequence[int], flags: int) -> int:
        ident, self._next = self._next, (self._next + 1) % IDS
        channel.send(wire.encode(ident, command, payload, flags=flags), fds)
        return ident

    def _answer(self, channel: Channel, ident: int, command: Command, brought: list[int] | None) -> Message:
        until = time.monotonic() + ANSWER_S
        poll = select.poll()
        poll.register(channel.fd, select.POLLIN)
        while True:
            message = channel.receive()
            left = until - time.monotonic()
            if message is None:
                if left <= 0:
                    raise PeerError(f"{command.name} was not answered within {ANSWER_S:g} s")
                poll.poll(left * 1000)
                continue
            with contextlib.closing(message):
                if message.is_reply and not self._is_of_posted(message, ident):
                    _check(message, ident, command)
                    if brought is not None:
                        brought += message.fds
                        message.fds.clear()
                    return message
                if left <= 0:
                    raise PeerError(f"{command.name} was not answered within {ANSWER_S:g} s")
                if not message.is_reply:
                    self._do(channel, message)

    def _is_of_posted(self, message: Message, awaited: int | None = None) -> bool:
        """Whether *message* answers what was posted: some servers answer all there is (the vfio_user crate)."""
        if message.id == awaited or message.command not in POSTED or not self._posted:
            return False
        self._posted -= 1
        return True

    def _do(self, channel: Channel, message: Message) -> None:
        """What the server asks for."""
        try:
            answer, flags, error = self._serve(message), wire.REPLY, 0
        except Refused as e:
            answer, flags, error = b"", wire.REPLY | wire.ERROR, e.code
        if message.wants_reply:
            channel.send(wire.encode(message.id, message.command, answer, flags=flags, error=error))

    def _ready(self) -> None:
        self._lock.run_on_loop(self._take_turn)

    def _take_turn(self) -> None:
        """Messages that nobody waits for; more wait for the loop's next turn."""
        channel = self._channel
        if channel is None:
            return
        try:
            for _ in range(MESSAGES_PER_TURN):
                message = channel.receive()
                if message is None:
                    break
                with contextlib.closing(message):
                    if message.is_reply and self._is_of_posted(message):
                        continue
                    if message.is_reply:
                        raise PeerError(f"{wire.name(message.command)} was answered unasked")
                    self._do(channel, message)
            self._lock.loop.modify(channel.fd, ONCE)
        except HostError as e:
            self._fail(e)

    def _fail(self, error: HostError) -> None:
        """The connection ends by itself. Under the lock."""
        if self._channel is not None:
            self._end()
            self._lost(error)

    def _end(self) -> None:
        """The server sees it at once; the descriptor is closed by the loop, which has to be rid of it first."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.shutdown()
            self._ended.append(channel)
            self._lock.loop.call_soon(self._forget)

    def _forget(self) -> None:
        while self._ended:
            with contextlib.suppress(IndexError):  # the loop and who closes come at once
                channel = self._ended.pop()
                self._lock.loop.remove(channel.fd)
                channel.close()


def _check(answer: Message, ident: int, command: Command) -> None:
    """Raises PeerError for an *answer* that can't be that to *command*."""
    if (answer.id, answer.command) != (ident, command):
        raise PeerError(f"{command.name} was answered by {wire.name(answer.command)} with another number")
    if answer.fds and command not in BRING_DESCRIPTORS:
        raise PeerError(f"{command.name} was answered with {len(answer.fds)} descriptors")
