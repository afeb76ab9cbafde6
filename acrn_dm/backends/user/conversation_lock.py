"""The conversation lock of one backend: one talk with its back-end at a time, by a control thread or the main loop.

A control thread may hold the lock for seconds, while a slow process answers; the main loop serves all devices and so
never waits for it: its work is put off until the lock is free. Neither side waits for the other's locks while it has
this one, so it may be taken below a function's lock.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from acrn_dm.base.events.ioloop import IoLoop

Work = Callable[[], object]


class ConversationLock:
    """The lock and the work that the main loop has put off."""

    def __init__(self, loop: IoLoop) -> None:
        self.loop = loop
        self._lock = threading.RLock()
        self._postponed: deque[Work] = deque()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Control threads: have the lock, waiting for it."""
        try:
            with self._lock:
                yield
        finally:
            if self._postponed:
                self.loop.call_soon(self._catch_up)

    def run_on_loop(self, work: Work) -> None:
        """The main loop: do *work* under the lock, now or when it is free."""
        self._postponed.append(work)
        self._catch_up()

    def _catch_up(self) -> None:
        # Whoever has the lock looks at the list after giving it back, so work that is put on it here is not forgotten.
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
