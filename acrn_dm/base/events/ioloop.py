"""An epoll loop on one thread: kick eventfds, backend files, timers and work from other threads.

Handlers run one at a time, on the loop's thread; ``epoll_wait`` runs without the GIL. A loop that has no thread is
stepped by its owner (``step``), which is how tests drive devices without a thread and without a clock.

``_running`` is held while handlers run. It alone would be unfair: a loop that always has work takes it again before
whoever waits for it has woken up. So a waiter closes ``_gate`` first, which the loop passes before each round.
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

from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.events.eventfd import SIGNALLED, drain

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

MIN_TIMERS = 64  # fewer are not worth looking through for cancelled ones
FINE_S = 0.01  # timers sooner than this are waited for in microseconds
FD_SETSIZE = 1024  # select(2) takes no larger descriptor

Callback = Callable[[], object]


@attrs.define(eq=False)
class Timer:
    """A pending ``call_later``; ``cancel`` is idempotent."""

    when: float
    callback: Callback | None

    def cancel(self) -> None:
        """Never run the callback from now on."""
        self.callback = None


@attrs.define(eq=False)
class IoLoop:
    """An epoll descriptor and its handlers. ``add``, ``remove`` and ``call_soon`` may be called from any thread."""

    name: str
    clock: Clock = attrs.field(default=REAL, repr=False)  # of its timers, and of the devices it serves
    _epoll: select.epoll = attrs.field(factory=select.epoll, init=False, repr=False)
    _wake: int = attrs.field(init=False)
    _handlers: dict[int, tuple[Callback, bool]] = attrs.field(factory=dict, init=False)
    _soon: deque[Callback] = attrs.field(factory=deque, init=False)
    _timers: list[tuple[float, int, Timer]] = attrs.field(factory=list, init=False)
    _sequence: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False, repr=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _running: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    _runner: int = attrs.field(default=0, init=False, repr=False)  # the thread that runs handlers now
    _gate: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    # Re-entrant: a signal's handler may wake the loop while its thread is doing so.
    _wake_lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    _timers_full: int = attrs.field(default=MIN_TIMERS, init=False, repr=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _in_run: bool = attrs.field(default=False, init=False, repr=False)
    in_flight: int = attrs.field(default=0, init=False)  # work given to helper threads that will come back by call_soon

    def __attrs_post_init__(self) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, READ)
        self.clock.attach(self)

    def add(self, fd: int, callback: Callback, *, events: int = READ, eventfd: bool = False) -> None:
        """Call *callback* whenever *fd* is ready. With *eventfd*, once it has been written; its count is read first.

        Raises OSError where *fd* can't be watched (plain files) or is watched already; then nothing has changed.
        """
        before = self._handlers.get(fd)
        self._handlers[fd] = (callback, eventfd)  # first: it may be ready at once
        try:
            self._epoll.register(fd, SIGNALLED if eventfd else events)
        except BaseException:
            if before is None:
                del self._handlers[fd]
            else:
                self._handlers[fd] = before
            raise

    def modify(self, fd: int, events: int) -> None:
        """Change what *fd* is watched for; 0 watches for errors only."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget *fd*; when this returns, its callback is neither running (unless we are in it) nor will it run
        again.
        """
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
        self.barrier()

    def barrier(self) -> None:
        """Wait until the handler that runs on the loop's thread now, if any, has returned."""
        with self.held():
            pass

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No handler runs while the block does (unless the block is in one). Waits for the one that runs now."""
        if self._runner == threading.get_ident():
            yield  # the gate may be closed by somebody who waits for us
        else:
            with self._gate, self._running:
                yield

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
        self._thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Run the loop on this thread until ``stop``."""
        self._in_run = True
        try:
            while not self._stopping:
                self.step(None)
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
            if self._wake >= 0:
                self._epoll.close()
                os.close(self._wake)
                self._wake = -1

    def step(self, timeout: float | None = 0.0) -> int:
        """Wait up to *timeout* seconds (None: for ever) for something to do, do it once; return how many handlers
        ran.
        """
        events = self._wait(self._patience(timeout))
        if self._runner != threading.get_ident():
            with self._gate:
                pass  # whoever has closed it comes first
        with self._running:
            outer, self._runner = self._runner, threading.get_ident()
            try:
                return sum(self._dispatch(fd) for fd, _ in events) + self._run_soon() + self._run_timers()
            finally:
                self._runner = outer

    def run_until_idle(self, limit: int = 10_000, patience: float = 10.0) -> int:
        """Step until nothing is ready and nothing is in flight, but for what sleeps on a clock that stands still; for
        loops without a thread. *patience* is in the host's seconds. Raises RuntimeError past the limits.
        """
        ran = 0
        deadline = time.monotonic() + patience
        for _ in range(limit):
            waits = self.in_flight and not self.clock.asleep
            done = self.step(0.05 if waits else 0.0)
            ran += done
            if not done and not waits and not self._soon:
                return ran
            if time.monotonic() > deadline:
                break
        raise RuntimeError(f"loop {self.name} does not come to rest: {self.in_flight} in flight, {ran} handlers ran")

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """epoll_wait, which counts whole milliseconds and rounds up: too long for queues that are polled. select(2)
        counts microseconds, and an epoll descriptor is readable when something on it is ready.
        """
        if timeout and timeout < FINE_S and self._epoll.fileno() < FD_SETSIZE:
            select.select([self._epoll], [], [], timeout)
            timeout = 0.0
        return self._epoll.poll(timeout)

    def _poke(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:  # closed: nobody will run what is added, and the number may be another file's by now
                os.eventfd_write(self._wake, 1)

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
        if fd == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
            return 0
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
