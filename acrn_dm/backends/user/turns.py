"""Turns between control threads and the main loop on one backend.

A control thread may hold the turn for seconds, while a slow process answers; the main loop serves all devices and so
never waits for a turn: its work is put off until the turn is free. Neither side waits for the other's locks inside a
turn, so a turn may be taken below a function's lock.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from acrn_dm.base.events.ioloop import IoLoop

Work = Callable[[], object]


class Turns:
    """See the module."""

    def __init__(self, loop: IoLoop) -> None:
        self.loop = loop
        self._lock = threading.RLock()
        self._postponed: deque[Work] = deque()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Control threads: have the turn, waiting for it."""
        try:
            with self._lock:
                yield
        finally:
            if self._postponed:
                self.loop.call_soon(self._catch_up)

    def on_loop(self, work: Work) -> None:
        """The main loop: do *work* in a turn, now or when the turn is free."""
        self._postponed.append(work)
        self._catch_up()

    def _catch_up(self) -> None:
        # Whoever has the turn looks at the list after giving it back, so work that is put on it here is not forgotten.
        while self._postponed and self._lock.acquire(blocking=False):
            try:
                if self._postponed:
                    self._postponed.popleft()()
            except BaseException:
                if self._postponed:  # the loop logs this one; the others are done all the same
                    self.loop.call_soon(self._catch_up)
                raise
            finally:
                self._lock.release()
