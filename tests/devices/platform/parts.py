"""What the tests of platform devices build with: a line that keeps its levels, a clock and a loop that a test moves."""

from collections.abc import Callable
from typing import Any

from acrn_dm.base.events.ioloop import Timer


class Level:
    """An interrupt line: ``asserted`` now, ``edges`` so far."""

    def __init__(self) -> None:
        self.asserted = False
        self.edges: list[bool] = []

    def __call__(self, asserted: bool) -> None:
        if asserted != self.asserted:
            self.edges.append(asserted)
        self.asserted = asserted


class Clock:
    """Seconds that pass when a test says so; also the loop whose timers fire meanwhile."""

    def __init__(self, now: float = 1_700_000_000.25) -> None:
        self.now = now
        self.timers: list[Timer] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(self.now + seconds, callback)
        self.timers.append(timer)
        return timer

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [t for t in self.timers if t.callback is not None and t.when <= end]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            callback: Any = timer.callback
            callback()
        self.now = end

    @property
    def armed(self) -> int:
        return sum(t.callback is not None for t in self.timers)
