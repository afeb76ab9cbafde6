"""A clock that only a test moves: for what depends on time and must not depend on the machine's."""

import pytest


class StoppedClock:
    """Stands in for ``time.monotonic`` from its making to the test's end; loops and their timers follow it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
