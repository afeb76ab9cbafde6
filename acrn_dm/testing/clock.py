"""A clock that only a test moves: loops, timers and devices wait for it and for nothing else."""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import cast

from acrn_dm.base.events.clock import Clock
from acrn_dm.base.events.ioloop import IoLoop

NS = 1_000_000_000
START = 1_767_225_600.0  # 2026-01-01 00:00 UTC
PATIENCE_S = 10.0  # of the host's time: what is in flight in a helper thread comes back by then


class VirtualClock(Clock):
    """Time that stands still until ``advance``. Give it to a machine (``SimMachine(clock=clock)``) or to an ``IoLoop``.

    ``monotonic`` begins at 0, ``time`` at *start* (seconds since 1970, UTC). The thread that makes the clock moves it.
    """

    stands_still = True

    def __init__(self, start: float = START) -> None:
        self._ns = 0
        self._start = start
        self._loops: list[IoLoop] = []
        self._owner = threading.get_ident()
        self._wakes: list[int] = []  # when each thread in ``sleep`` is due
        self._moved = threading.Condition()

    def __repr__(self) -> str:
        return f"VirtualClock({self._ns / NS:.9f} s)"

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._ns / NS

    def monotonic_ns(self) -> int:
        """Nanoseconds since the clock was made."""
        return self._ns

    def time(self) -> float:
        """Seconds since 1970."""
        return self._start + self._ns / NS

    def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved that far. In the thread that moves it: move it, no timer runs meanwhile."""
        until = self._ns + round(seconds * NS)
        if threading.get_ident() == self._owner:
            self._move(until)
            return
        with self._moved:
            if until > self._ns:
                heapq.heappush(self._wakes, until)
                self._moved.wait_for(lambda: self._ns >= until)

    @property
    def asleep(self) -> int:
        """Threads that wait in ``sleep``."""
        with self._moved:
            return len(self._wakes)

    def attach(self, loop: object) -> None:
        """Move *loop*'s timers from now on."""
        self._loops.append(cast(IoLoop, loop))

    def detach(self, loop: object) -> None:
        """*loop* is closed."""
        self._loops = [other for other in self._loops if other is not loop]

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass: every timer that becomes due runs, of all loops in the order of time, and sees the time
        at which it is due; between two of them all work that there is gets done. Loops without a thread are stepped.

        Raises RuntimeError where that does not come to rest.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        target = self._ns + round(seconds * NS)
        self.settle()
        while (due := self._due()) is not None and due <= target:
            self._move(due)
            self.settle()
        self._move(target)
        self.settle()

    def advance_to_next(self) -> bool:
        """Let time pass until the next timer has run, or thread has woken; False where nothing waits for time."""
        self.settle()
        due = self._due()
        if due is not None:
            self._move(due)
            self.settle()
        return due is not None

    def run_until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass, from timer to timer, until *true* is. Raises AssertionError after *seconds* or where nothing
        waits for time any more.
        """
        limit = self._ns + round(seconds * NS)
        self.settle()
        while not true():
            due = self._due()
            assert due is not None, "nothing waits for time any more"
            assert due <= limit, f"not within {seconds:g} s"
            self._move(due)
            self.settle()

    def settle(self) -> None:
        """Have every loop do all that it can do now."""
        settle([loop for loop in self._loops if not loop.runs_by_itself], self)
        for loop in [loop for loop in self._loops if loop.runs_by_itself]:
            _two_turns(loop)

    def _due(self) -> int | None:
        """When the next timer runs or thread wakes, in nanoseconds."""
        times = [when for loop in self._loops if (when := loop.next_timer()) is not None]
        with self._moved:
            return min([_at_least(when) for when in times] + self._wakes[:1], default=None)

    def _move(self, ns: int) -> None:
        with self._moved:
            self._ns = max(self._ns, ns)
            while self._wakes and self._wakes[0] <= self._ns:
                heapq.heappop(self._wakes)
            self._moved.notify_all()


def settle(loops: Iterable[IoLoop], clock: Clock) -> int:
    """Step *loops*, which have no thread, until none has anything to do and what is in flight sleeps on *clock*.

    Returns how many handlers ran. Raises RuntimeError after 10 s of the host's.
    """
    loops = list(loops)
    total, until = 0, time.monotonic() + PATIENCE_S
    while True:
        ran = sum(loop.run_until_idle() for loop in loops)
        total += ran
        busy = sum(loop.in_flight for loop in loops) > clock.asleep
        if not ran and not busy:
            return total
        if time.monotonic() > until:
            raise RuntimeError(f"the loops do not come to rest: {[(loop.name, loop.in_flight) for loop in loops]}")


def _two_turns(loop: IoLoop) -> None:
    """Wait until *loop*, which has a thread, has run the timers that are due: what is called soon comes before them."""
    done = threading.Event()
    loop.call_soon(lambda: loop.call_soon(done.set))
    if not done.wait(PATIENCE_S):
        raise RuntimeError(f"loop {loop.name} does not come round")


def _at_least(when: float) -> int:
    """The first nanosecond that is not before *when*."""
    ns = math.ceil(when * NS)
    return ns if ns / NS >= when else ns + 1
