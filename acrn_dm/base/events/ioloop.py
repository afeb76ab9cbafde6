"""An epoll loop on one thread: kick eventfds, backend files, timers and work from other threads.

Handlers run one at a time, on the loop's thread. Those in C (``poll``) run without the GIL, which the thread takes only
when there is something for Python: handlers, timers, ``call_soon``. A loop that has no thread is stepped by its owner
(``step``), which is how tests drive devices without a thread and without a clock.

The run lock of ``poll`` is held while handlers run, of either kind.
"""

import contextlib
import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import attrs

from acrn_dm.base._libc import set_thread_name
from acrn_dm.base.events._poll import EventPoll
from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.events.eventfd import SIGNALLED, drain
from acrn_dm.base.records import define

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

MIN_TIMERS = 64  # fewer are not worth looking through for cancelled ones

Callback = Callable[[], object]


@define(eq=False)
class Timer:
    """A pending ``call_later``; ``cancel`` is idempotent."""

    when: float
    callback: Callback | None

    def cancel(self) -> None:
        """Never run the callback from now on."""
        self.callback = None


@define(eq=False)
class IoLoop:
    """An epoll descriptor and its handlers. ``add``, ``remove`` and ``call_soon`` may be called from any thread."""

    name: str
    clock: Clock = attrs.field(default=REAL, repr=False)  # of its timers, and of the devices it serves
    poll: EventPoll = attrs.field(factory=EventPoll, init=False, repr=False)  # for handlers in C, which cimport it
    _handlers: dict[int, tuple[Callback, bool]] = attrs.field(factory=dict, init=False)
    _soon: deque[Callback] = attrs.field(factory=deque, init=False)
    _timers: list[tuple[float, int, Timer]] = attrs.field(factory=list, init=False)
    _sequence: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False, repr=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _runner: int = attrs.field(default=0, init=False, repr=False)  # the thread that runs Python handlers now
    # Re-entrant: a signal's handler may wake the loop while its thread is doing so.
    _wake_lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    _timers_full: int = attrs.field(default=MIN_TIMERS, init=False, repr=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _in_run: bool = attrs.field(default=False, init=False, repr=False)
    in_flight: int = attrs.field(default=0, init=False)  # work given to helper threads that will come back by call_soon

    def __attrs_post_init__(self) -> None:
        self.clock.attach(self)

    def add(self, fd: int, callback: Callback, *, events: int = READ, eventfd: bool = False) -> None:
        """Call *callback* whenever *fd* is ready. With *eventfd*, once it has been written; its count is read first.

        Raises OSError where *fd* can't be watched (plain files) or is watched already; then nothing has changed.
        """
        before = self._handlers.get(fd)
        self._handlers[fd] = (callback, eventfd)  # first: it may be ready at once
        try:
            self.poll.register(fd, SIGNALLED if eventfd else events)
        except BaseException:
            if before is None:
                del self._handlers[fd]
            else:
                self._handlers[fd] = before
            raise

    def attend(self, fd: int, callback: Callback) -> None:
        """Call *callback* when the C handler of *fd* asks for Python (``EventPoll.ask``), until ``remove``."""
        self._handlers[fd] = (callback, False)

    def modify(self, fd: int, events: int) -> None:
        """Change what *fd* is watched for; 0 watches for errors only."""
        self.poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget *fd*; when this returns, its handler, in C or not, is neither running (unless we are in it) nor will
        it run again.
        """
        if self._handlers.pop(fd, None) is not None or self.poll.is_native(fd):
            with contextlib.suppress(OSError):
                self.poll.unregister(fd)
        self.barrier()

    def barrier(self) -> None:
        """Wait until the handler that runs on the loop's thread now, if any, has returned."""
        with self.held():
            pass

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No handler runs while the block does (unless the block is in one). Waits for the one that runs now."""
        self.poll.take()
        try:
            yield
        finally:
            self.poll.leave()

    def call_soon(self, callback: Callback) -> None:
        """Run *callback* on the loop's thread."""
        self._soon.append(callback)
        self._poke()

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Run *callback* on the loop's thread in *seconds* from now, unless the timer is cancelled."""
        timer = Timer(self.clock.monotonic() + seconds, callback)

        def arm() -> None:
            if timer.callback is not None:
                self._prune()
                heapq.heappush(self._timers, (timer.when, next(self._sequence), timer))

        if self._runner == threading.get_ident():
            arm()  # the heap is ours, and a timer that arms itself anew need not wake the loop for that
        else:
            self.call_soon(arm)
        return timer

    def next_timer(self) -> float | None:
        """When the next timer is due, on the loop's clock; None without one."""
        with self.held():
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            return self._timers[0][0] if self._timers else None

    @property
    def runs_by_itself(self) -> bool:
        """Some thread is in ``run``; else the loop is stepped by its owner."""
        return self._in_run

    def start(self) -> None:
        """Run the loop on a thread of its own until ``stop``."""
        self._stopping = False
        self._in_run = True
        self._thread = threading.Thread(target=self._run_named, name=self.name, daemon=True)
        self._thread.start()

    def _run_named(self) -> None:
        set_thread_name(self.name.encode())
        self.run()

    def run(self) -> None:
        """Run the loop on this thread until ``stop``."""
        self._in_run = True
        try:
            while not self._stopping:
                self._round(None, stay=True)
        finally:
            self._in_run = False

    def stop(self) -> None:
        """End ``run``; from another thread, wait for the loop's own thread to end."""
        self._stopping = True
        self._poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop, and close what the loop opened (never the fds that were added)."""
        self.stop()
        self.clock.detach(self)
        with self._wake_lock:
            self.poll.close()

    def step(self, timeout: float | None = 0.0) -> int:
        """Wait up to *timeout* seconds (None: for ever) for something to do, do it once; return how many handlers
        ran.
        """
        return self._round(timeout, stay=False)

    def _round(self, timeout: float | None, *, stay: bool) -> int:
        """*stay*: C handlers alone do not end the wait."""
        events = self.poll.wait(self._patience(timeout), stay)
        ran = self.poll.ran
        if not events and not self._soon and not self._timers:
            return ran
        self.poll.take()
        outer, self._runner = self._runner, threading.get_ident()
        try:
            return ran + sum(self._dispatch(fd) for fd, _ in events) + self._run_soon() + self._run_timers()
        finally:
            self._runner = outer
            self.poll.leave()

    def run_until_idle(self, limit: int = 10_000, patience: float = 10.0) -> int:
        """Step until nothing is ready and nothing is in flight, but for what sleeps on a clock that stands still; for
        loops without a thread. *patience* is in the host's seconds. Raises RuntimeError past the limits.
        """
        ran = 0
        deadline = time.monotonic() + patience
        for _ in range(limit):
            waits = (self.in_flight or self.poll.outstanding) and not self.clock.asleep
            done = self.step(0.05 if waits else 0.0)
            ran += done
            if not done and not waits and not self._soon:
                return ran
            if time.monotonic() > deadline:
                break
        raise RuntimeError(f"loop {self.name} does not come to rest: {self.in_flight} in flight, {ran} handlers ran")

    def _poke(self) -> None:
        with self._wake_lock:
            if self.poll.wake >= 0:  # closed: nobody will run what is added
                os.eventfd_write(self.poll.wake, 1)

    def _patience(self, timeout: float | None) -> float | None:
        if self._soon:
            return 0.0
        if not self._timers:
            return timeout
        due = max(0.0, self._timers[0][0] - self.clock.monotonic())
        if due and self.clock.stands_still:
            return timeout  # who moves the clock wakes the loop
        return due if timeout is None else min(timeout, due)

    def _dispatch(self, fd: int) -> int:
        entry = self._handlers.get(fd)
        if entry is None:
            return 0
        callback, eventfd = entry
        if eventfd and not drain(fd):
            return 0
        self._call(callback)
        return 1

    def _run_soon(self) -> int:
        count = len(self._soon)  # what is added meanwhile waits for the next step: no handler can starve the loop
        for _ in range(count):
            self._call(self._soon.popleft())
        return count

    def _prune(self) -> None:
        """Forget cancelled timers when the heap has doubled: a guest may cancel them faster than they expire."""
        if len(self._timers) >= self._timers_full:
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._timers_full = max(MIN_TIMERS, 2 * len(self._timers))

    def _run_timers(self) -> int:
        if not self._timers:
            return 0
        now = self.clock.monotonic()
        ran = 0
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._call(timer.callback)
                ran += 1
        return ran

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:  # one broken device must not stop the others that live on this loop
            log.exception("handler on loop %s failed", self.name)
