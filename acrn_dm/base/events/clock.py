"""Time, as loops, timers and devices have it: this host's, unless a test puts a clock of its own in its place."""

import time


class Clock:
    """This host's clocks. A loop has one, ``Resources.clock`` is the same: a device that asks no other can be tested
    without waiting (``acrn_dm.testing.VirtualClock``).
    """

    stands_still = False  # time passes only when somebody says so: a loop can't wait for it

    @property
    def asleep(self) -> int:
        """Threads in ``sleep`` that only ``advance`` of a clock that stands still wakes; 0 on this one."""
        return 0

    def monotonic(self) -> float:
        """Seconds since some moment in the past; never goes back (CLOCK_MONOTONIC)."""
        return time.monotonic()

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        return time.monotonic_ns()

    def time(self) -> float:
        """Seconds since 1970, UTC (CLOCK_REALTIME)."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait."""
        time.sleep(seconds)

    def attach(self, loop: object) -> None:
        """The ``IoLoop`` *loop* has its timers on this clock from now on."""

    def detach(self, loop: object) -> None:
        """The ``IoLoop`` *loop* is closed."""


REAL = Clock()
