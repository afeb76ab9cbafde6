"""A conversation with a vhost-user back-end, independent of who waits for its answers.

A ``Talk`` is a generator: it yields what to ask and is sent the answer. The same talk runs to its end on a control
thread, which waits, or step by step on the main loop, which does not. ``Exchange`` is one talk in progress; it refuses
every message that is not the answer to the last question.
"""

import enum
import select
import time
from collections.abc import Generator, Sequence
from typing import Generic, TypeVar

import attrs

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire.channel import Channel
from acrn_dm.backends.wire.message import Message, PeerError, Request
from acrn_dm.base.records import frozen

T = TypeVar("T")


class Answer(enum.Enum):
    """The form of a request's answer."""

    NONE = "none"
    ACK = "ack"  # REPLY_ACK: a u64 that is 0 when it worked
    DATA = "data"


@frozen(kw_only=True)
class Ask:
    """One request. The descriptors stay the asker's."""

    code: Request
    payload: bytes = attrs.field(default=b"", repr=False)
    fds: Sequence[int] = ()
    answer: Answer = Answer.DATA
    fd_expected: bool = False  # the answer may bring a descriptor


Talk = Generator[Ask, Message | None, T]


class Exchange(Generic[T]):
    """The conversation that is under way. Not thread-safe."""

    def __init__(self, channel: Channel, talk: Talk[T]) -> None:
        self.result: T
        self._channel = channel
        self._talk = talk
        self._asked: Ask | None = None
        self._begun = False

    @property
    def waiting_for(self) -> str:
        """The request that has not been answered yet."""
        return "nothing" if self._asked is None else self._asked.code.name

    def advance(self) -> bool:
        """Go on as far as possible without waiting; True when ``result`` is there. Raises PeerError or PeerGone."""
        while True:
            answer = None
            if self._asked is not None:
                answer = self._channel.receive()
                if answer is None:
                    return False
            try:
                self._step(answer)
            except StopIteration as e:
                self.result = e.value
                return True
            finally:
                if answer is not None:
                    answer.close()

    def finish(self, seconds: float) -> T:
        """Wait up to *seconds* for the end. Raises PeerError (also for silence) or PeerGone."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._channel.fd, select.POLLIN)
        while not self.advance():
            patience = deadline - time.monotonic()
            if patience <= 0:
                raise self.silence(seconds)
            poller.poll(patience * 1000)
        return self.result

    def silence(self, seconds: float) -> PeerError:
        """The error of an answer that did not come."""
        return PeerError(f"{self.waiting_for} was not answered within {seconds:g} s")

    def abandon(self) -> None:
        """The connection is gone; the talk releases what it holds."""
        self._talk.close()

    def _step(self, answer: Message | None) -> None:
        """Hand *answer* to the talk and send what it asks next."""
        if answer is not None:
            assert self._asked is not None
            check_answer(self._asked, answer)
        ask = self._talk.send(answer) if self._begun else next(self._talk)
        self._begun = True
        flags = wire.NEED_REPLY if ask.answer is Answer.ACK else 0
        self._channel.send(ask.code, ask.payload, flags=flags, fds=ask.fds)
        self._asked = ask if ask.answer is not Answer.NONE else None


def check_answer(ask: Ask, answer: Message) -> None:
    """Raise PeerError unless *answer* can be the answer to *ask*."""
    if answer.code != ask.code or not answer.is_reply:
        kind = "answer to" if answer.is_reply else "unasked"
        raise PeerError(f"{ask.code.name} was answered with {kind} {wire.name(answer.code)}")
    if answer.fds and not ask.fd_expected:
        raise PeerError(f"{ask.code.name} was answered with {len(answer.fds)} descriptors")
    if ask.answer is Answer.ACK and answer.number:
        raise PeerError(f"{ask.code.name} was refused: {answer.number:#x}")
