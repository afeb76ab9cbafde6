"""The wait until functions have nothing in flight any more, before their guest's memory becomes somebody else's."""

import logging
import math
import time
from collections.abc import Callable, Sequence

from acrn_dm.pci.function import PciFunction

log = logging.getLogger(__name__)

LOOK_S = 0.005
TELL_S = 1.0  # what is waited for longer than this is worth a line


def quiesce(
    functions: Sequence[PciFunction],
    step: Callable[[float], object],
    *,
    seconds: float = math.inf,
    go_on: Callable[[], bool] = lambda: True,
) -> bool:
    """Begin to reset all *functions* and wait until none has anything in flight; return whether that is so.

    It takes *seconds* at most, and only while *go_on* says so. Meanwhile *step* is called, with the seconds that it may
    take.
    """
    began, told = time.monotonic(), False
    while waiting := [function for function in functions if not function.quiesce()]:
        waited = time.monotonic() - began
        if waited >= seconds or not go_on():
            return False
        if waited >= TELL_S and not told:
            told = True
            log.warning("waiting for what the host has in flight: %s", ", ".join(f.name for f in waiting))
        step(LOOK_S)
    return True


def left_behind(functions: Sequence[PciFunction]) -> bool:
    """Whether the host still uses the guest's memory for something that was given up; the log says of whose."""
    stuck = [function.name for function in functions if function.busy]
    if stuck:
        log.error("left behind, with the guest's memory, until the process ends: %s", ", ".join(stuck))
    return bool(stuck)
