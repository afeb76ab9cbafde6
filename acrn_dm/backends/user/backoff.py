"""The delay before the next try to reach a process that is not there: short at first, then longer and longer."""

from collections.abc import Callable

from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.base.events.ioloop import Timer

FIRST_S, LAST_S = 0.01, 1.0  # doubled each time
STABLE_S = 1.0  # a connection that lasted that long was a good one: the next attempt is soon again


class Backoff:
    """The pending try: calls *attempt* on the main loop, under the conversation lock, some time after ``schedule``."""

    def __init__(self, conversations: ConversationLock, attempt: Callable[[], None]) -> None:
        self._conversations = conversations
        self._attempt = attempt
        self._delay = FIRST_S
        self._connected_at: float | None = None
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """An attempt is going to be made."""
        return self._timer is not None

    def schedule(self) -> None:
        """Try again, unless that is going to happen anyway."""
        if self._timer is None:
            if self._connected_at is not None and self._now() - self._connected_at >= STABLE_S:
                self._delay = FIRST_S
            self._connected_at = None
            self._timer = self._conversations.loop.call_later(
                self._delay, lambda: self._conversations.run_on_loop(self._due)
            )
            self._delay = min(2 * self._delay, LAST_S)

    def connected(self) -> None:
        """An attempt worked."""
        self._connected_at = self._now()

    def cancel(self) -> None:
        """Do not try again."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _now(self) -> float:
        return self._conversations.loop.clock.monotonic()

    def _due(self) -> None:
        if self._timer is not None:
            self._timer = None
            self._attempt()
