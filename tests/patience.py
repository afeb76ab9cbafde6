"""Waiting for what another thread or process does on its own time: bounded, and looked at again and again."""

import time
from collections.abc import Callable


def comes_true(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether *condition* holds within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
