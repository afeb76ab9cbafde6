"""Delays: futures that end at their time, all by one thread, which is there while something waits."""

import heapq
import math
import threading
import time
from concurrent.futures import Future

import attrs

Later = Future[None] | None  # what a driver's calls return


@attrs.define(order=True)
class Waiting:
    """A request that is done but for the time: *later* ends at *due*, with *error* if there is one."""

    due: float
    number: int
    later: "Future[None]" = attrs.field(order=False)
    error: OSError | None = attrs.field(order=False)

    def end(self) -> None:
        """End it, unless nobody waits any more."""
        if self.later.set_running_or_notify_cancel():
            if self.error is not None:
                self.later.set_exception(self.error)
            else:
                self.later.set_result(None)


@attrs.define(eq=False)
class Delays:
    """The requests that wait. Any thread."""

    _waiting: list[Waiting] = attrs.field(factory=list, init=False)
    _number: int = attrs.field(default=0, init=False)
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False, repr=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)

    def after(self, seconds: float, error: OSError | None) -> "Future[None]":
        """A future that ends in *seconds*, with *error* if there is one."""
        later: Future[None] = Future()
        with self._changed:
            self._number += 1
            heapq.heappush(self._waiting, Waiting(time.monotonic() + seconds, self._number, later, error))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="blk-faults", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return later

    def behind(self, below: Later, seconds: float) -> Later:
        """What ends in *seconds* after *below*, and as that."""
        if below is None:
            return self.after(seconds, None)
        whole: Future[None] = Future()

        def ended(before: "Future[None]") -> None:
            error = before.exception()
            if isinstance(error, OSError) or error is None:
                self.after(seconds, error).add_done_callback(lambda last: _copy(last, whole))
            else:
                whole.set_exception(error)

        below.add_done_callback(ended)
        return whole

    def release(self) -> None:
        """End all that wait now."""
        with self._changed:
            waiting, self._waiting = sorted(self._waiting), []
            self._changed.notify_all()
        for one in waiting:
            one.end()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return
                wait = self._waiting[0].due - time.monotonic()
                if wait > 0:
                    self._changed.wait(None if wait == math.inf else wait)
                    continue
                one = heapq.heappop(self._waiting)
            one.end()


def _copy(last: "Future[None]", whole: "Future[None]") -> None:
    if not whole.set_running_or_notify_cancel():
        return
    error = last.exception() if not last.cancelled() else None
    if error is not None:
        whole.set_exception(error)
    else:
        whole.set_result(None)
