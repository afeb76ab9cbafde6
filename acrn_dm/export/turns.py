"""A client's turn on the main loop, for every protocol."""

import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from acrn_dm.backends.wire.message import PeerGone
from acrn_dm.base.errors import AcrnDmError

log = logging.getLogger(__name__)

MESSAGES_PER_TURN = 64


class Closable(Protocol):
    """A message, which owns what came along with it."""

    def close(self) -> None:
        """Close what nobody took."""


M = TypeVar("M", bound=Closable)


def take_turn(receive: Callable[[], M | None], serve: Callable[[M], object], close: Callable[[], object]) -> None:
    """A turn: *serve* does what each message asks for, up to so many; *close* ends the client when it is gone, and,
    with a line in the log, when it can't be served any more. Raises nothing of ours.
    """
    try:
        for _ in range(MESSAGES_PER_TURN):
            message = receive()
            if message is None:
                return
            with contextlib.closing(message):
                serve(message)
    except PeerGone:
        close()
    except AcrnDmError as e:
        log.error("the client is disconnected: %s", e)
        close()
