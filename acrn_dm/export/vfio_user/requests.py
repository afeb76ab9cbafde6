"""Our requests to the client, DMA_READ and DMA_WRITE: sent by whoever needs them, answered on the main loop.

Clients serve them in a loop of theirs that may wait for an answer of ours, so they are never sent before it: a device
that wants to move data within a register access is told that it can't.
"""

import threading

from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.channel import Channel
from acrn_dm.backends.wire.vfio_user.message import Command, Message
from acrn_dm.base.errors import GuestError, HostError

ANSWER_S = 30.0
IDS = 1 << 16


class Requests:
    """Requests of one connection. *most*: bytes that one may move. Made on the thread that serves the client."""

    def __init__(self, channel: Channel, most: int = wire.MAX_TRANSFER) -> None:
        self.most = most
        self._channel = channel
        self._server = threading.get_ident()
        self._changed = threading.Condition()
        self._waiting: dict[int, Message | None] = {}
        self._next = 0
        self._over = False

    def read(self, address: int, count: int) -> bytes:
        """Read *count* bytes, ``most`` at most. Raises GuestError."""
        answer = self._ask(Command.DMA_READ, wire.DMA.pack(address, count))
        if len(answer.payload) != wire.DMA.size + count or answer.payload[: wire.DMA.size] != wire.DMA.pack(
            address, count
        ):
            raise GuestError(f"DMA_READ of {count:#x} bytes at {address:#x}: {len(answer.payload)} bytes came")
        return answer.payload[wire.DMA.size :]

    def write(self, address: int, data: bytes, seconds: float = ANSWER_S) -> None:
        """Write *data*, ``most`` bytes at most. Raises GuestError, when there is no answer in *seconds*, too."""
        self._ask(Command.DMA_WRITE, wire.DMA.pack(address, len(data)) + data, seconds)

    def answered(self, message: Message) -> None:
        """A reply came. One that nobody waits for is late, and of no use."""
        with self._changed:
            if message.id in self._waiting:
                self._waiting[message.id] = message
                self._changed.notify_all()

    def abort(self) -> None:
        """Who waits, waits in vain: the function is reset."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    def end(self) -> None:
        """The connection is over."""
        with self._changed:
            self._over = True
        self.abort()

    def _ask(self, command: Command, payload: bytes, seconds: float = ANSWER_S) -> Message:
        if threading.get_ident() == self._server:
            raise GuestError("DMA by messages within a register access")
        ident = self._begin()
        try:
            self._channel.send(wire.encode(ident, command, payload))
            return self._answer(ident, command, seconds)
        except HostError as e:
            raise GuestError(f"{command.name}: {e}") from e
        finally:
            with self._changed:
                self._waiting.pop(ident, None)

    def _begin(self) -> int:
        with self._changed:
            if self._over:
                raise GuestError("DMA after the client has left")
            while self._next in self._waiting:  # as many as there are threads that move data
                self._next = (self._next + 1) % IDS
            ident, self._next = self._next, (self._next + 1) % IDS
            self._waiting[ident] = None
            return ident

    def _answer(self, ident: int, command: Command, seconds: float) -> Message:
        def done() -> bool:
            return self._waiting.get(ident, self) is not None

        with self._changed:
            if not self._changed.wait_for(done, seconds):
                raise GuestError(f"{command.name} was not answered in {seconds:g} s")
            answer = self._waiting.get(ident)
        if answer is None:
            raise GuestError(f"{command.name} was given up")
        if answer.command != command or answer.flags & wire.ERROR:
            raise GuestError(f"{command.name} failed: {wire.name(answer.command)}, error {answer.error}")
        return answer
