"""Waiting for what another thread or process does on its own time: bounded, and looked at again and again."""

import time
from collections.abc import Callable
from pathlib import Path


def comes_true(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether *condition* holds within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def asleep_s() -> float:
    """How long this thread has slept so far, in seconds from any start: what a busy machine kept it waiting for a
    processor is no sleep.
    """
    ran, ready, _ = Path("/proc/thread-self/schedstat").read_text().split()  # nanoseconds
    return time.monotonic() - (int(ran) + int(ready)) / 1e9
