"""When the next attempt is made, with a clock that only the test moves."""

import time
from collections.abc import Iterator

import attrs
import pytest

from acrn_dm.backends.user.backoff import FIRST_S, LAST_S, STABLE_S, Backoff
from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.base.events.ioloop import IoLoop

DELAYS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]
MOMENT = 1e-6


@attrs.define(eq=False)
class Waiting:
    """A ``Backoff``, its loop and the time; ``attempts`` counts what it did."""

    loop: IoLoop
    now: float = 1000.0
    attempts: int = 0
    backoff: Backoff = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.backoff = Backoff(ConversationLock(self.loop), self._attempt)

    def _attempt(self) -> None:
        self.attempts += 1

    def let_pass(self, seconds: float) -> None:
        self.now += seconds
        self.loop.step()

    def delay(self) -> float:
        """Schedule an attempt; after how long it is made."""
        self.backoff.schedule()
        self.loop.step()  # from here on the timer is known
        before, began = self.attempts, self.now
        (due,) = [timer.when for _, _, timer in self.loop._timers if timer.callback is not None]
        self.let_pass(due - self.now - MOMENT)
        assert self.attempts == before, "too early"
        self.let_pass(2 * MOMENT)
        assert self.attempts == before + 1, "once, when it is due"
        return round(self.now - began, 4)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    loop = IoLoop("main")
    waiting = Waiting(loop)
    monkeypatch.setattr(time, "monotonic", lambda: waiting.now)
    yield waiting
    loop.close()


def test_each_delay_is_twice_the_last_up_to_a_second(waiting: Waiting) -> None:
    assert (DELAYS[0], DELAYS[-1]) == (FIRST_S, LAST_S)
    assert [waiting.delay() for _ in DELAYS] == DELAYS


def test_connection_that_lasted_is_followed_by_a_soon_attempt(waiting: Waiting) -> None:
    assert [waiting.delay() for _ in range(4)] == DELAYS[:4]
    waiting.backoff.connected()
    waiting.let_pass(STABLE_S)
    assert [waiting.delay() for _ in range(3)] == DELAYS[:3]


def test_connection_that_did_not_last_does_not_make_the_next_attempt_sooner(waiting: Waiting) -> None:
    """A back-end that takes connections and dies over the first request is not asked a hundred times a second."""
    delays = []
    for _ in DELAYS:
        delays.append(waiting.delay())
        waiting.backoff.connected()
        waiting.let_pass(STABLE_S - 10 * MOMENT)
    assert delays == DELAYS


def test_time_without_a_connection_is_none_with_a_good_one(waiting: Waiting) -> None:
    waiting.backoff.connected()
    waiting.let_pass(STABLE_S / 2)
    assert [waiting.delay() for _ in DELAYS] == DELAYS


def test_what_is_scheduled_already_is_not_put_off(waiting: Waiting) -> None:
    waiting.backoff.schedule()
    waiting.loop.step()
    for _ in range(3):
        waiting.backoff.schedule()
    assert waiting.backoff.pending
    waiting.let_pass(FIRST_S + MOMENT)
    assert (waiting.attempts, waiting.backoff.pending) == (1, False)
    assert waiting.delay() == DELAYS[1]


def test_cancelled_attempt_is_not_made(waiting: Waiting) -> None:
    waiting.backoff.schedule()
    waiting.loop.step()
    waiting.backoff.cancel()
    assert not waiting.backoff.pending
    waiting.let_pass(LAST_S)
    assert waiting.attempts == 0


def test_cancelled_attempt_does_not_come_in_place_of_the_next(waiting: Waiting) -> None:
    waiting.backoff.schedule()
    waiting.loop.step()
    waiting.backoff.cancel()
    assert waiting.delay() == DELAYS[1]
