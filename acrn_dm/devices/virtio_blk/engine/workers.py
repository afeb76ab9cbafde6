"""A few threads that execute blocking jobs of one queue; results come back to the queue's loop in batches.

A thread that waits in the host's kernel can't be called back. So a pool that is given up (``cancel``) lets go of what
no thread has begun, tells the jobs that have, which look between two pieces of their work, and leaves behind what does
not come back: ``busy`` says whether anything is.
"""

import functools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define

if TYPE_CHECKING:
    from concurrent.futures import Future

J = TypeVar("J")


@define(eq=False)
class WorkerPool(Generic[J]):
    """The threads of one queue: started as jobs pile up, at most *limit*, they stay until ``close``.

    *execute* runs on a thread and never raises; *finish* gets all jobs that are done by then, on *loop*. A job for
    which it returns a future is executed again once that is done, and keeps no thread until then.
    """

    name: str
    loop: IoLoop
    execute: Callable[[J], "Future[None] | None"]
    finish: Callable[[list[J]], None]
    limit: int = 8
    cancelled: bool = attrs.field(default=False, init=False)
    _jobs: "queue.SimpleQueue[J | None]" = attrs.field(factory=queue.SimpleQueue, init=False, repr=False)
    _done: list[J] = attrs.field(factory=list, init=False, repr=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False, repr=False)
    _waiting: "set[Future[None]]" = attrs.field(factory=set, init=False, repr=False)
    _unfinished: int = attrs.field(default=0, init=False)
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False, repr=False)

    def submit(self, job: J) -> None:
        """Have *job* executed. On the loop's thread."""
        self.loop.in_flight += 1
        with self._changed:
            self._unfinished += 1
            grow = self._unfinished > len(self._threads) < self.limit
        if grow:
            self._start_thread()
        self._jobs.put(job)

    @property
    def busy(self) -> bool:
        """Whether a thread is still at a job that was given up."""
        return self.cancelled and self._unfinished > 0

    def cancel(self) -> None:
        """Nobody wants the results any more: see the module. Does not wait.

        No ``submit`` may run now or later; ``finish`` does not run when this has returned, nor later.
        """
        with self._changed:
            self.cancelled = True
            dropped = len(self._done)
            self._done.clear()
            waiting = tuple(self._waiting)
        for later in waiting:
            later.cancel()
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
                dropped += 1
                with self._changed:
                    self._unfinished -= 1
        if dropped:
            self.loop.call_soon(lambda: self._returned(dropped))
        self.loop.barrier()

    def still_wanted(self, action: Callable[[], None]) -> bool:
        """Do *action*, which is quick, unless the pool was given up; return whether it was done. ``cancel`` waits."""
        with self._changed:
            if not self.cancelled:
                action()
            return not self.cancelled

    def drain(self, timeout: float | None = None) -> list[J]:
        """Wait until everything submitted is executed; return the results that ``finish`` did not get yet.

        No ``submit`` may run meanwhile. When this returns the loop neither runs ``finish`` nor will it. Raises
        HostError after *timeout* seconds; the pool is given up then.
        """
        with self._changed:
            idle = self._changed.wait_for(lambda: self._unfinished == 0, timeout)
            left = self._done.copy()
            self._done.clear()
        if left:
            count = len(left)
            self.loop.call_soon(lambda: self._returned(count))
        if not idle:
            self.cancel()
            raise HostError(f"{self.name}: requests are stuck in the host")
        self.loop.barrier()
        return left

    def close(self) -> None:
        """End the threads; those that are at a job do so when it is over, and are waited for unless it was given up."""
        for _ in self._threads:
            self._jobs.put(None)
        if not self.busy:
            for thread in self._threads:
                thread.join()
        self._threads.clear()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            later = self.execute(job)
            if later is not None:
                self._wait(later, job)
                del job, later
                continue
            with self._changed:
                wanted = not self.cancelled
                if wanted:
                    self._done.append(job)
                first = len(self._done) == 1  # later ones go along with it
                del job  # it refers to guest memory: when nothing is unfinished, no thread may
                self._unfinished -= 1
                if self._unfinished == 0:
                    self._changed.notify_all()
            if not wanted:
                self.loop.call_soon(lambda: self._returned(1))
            elif first:
                self.loop.call_soon(self._collect)

    def _wait(self, later: "Future[None]", job: J) -> None:
        with self._changed:
            self._waiting.add(later)
            cancelled = self.cancelled
        later.add_done_callback(functools.partial(self._came, [job]))
        if cancelled:
            later.cancel()

    def _came(self, jobs: list[J], later: "Future[None]") -> None:
        """On whatever thread has ended *later*, which keeps what it was called with, but not the job."""
        job = jobs.pop()
        with self._changed:
            self._waiting.discard(later)
            wanted = not self.cancelled
            if wanted:
                self._jobs.put(job)
            else:
                self._unfinished -= 1
        if not wanted:
            self.loop.call_soon(lambda: self._returned(1))

    def _collect(self) -> None:
        with self._changed:
            batch = self._done.copy()
            self._done.clear()
        self._returned(len(batch))
        if batch:
            self.finish(batch)

    def _returned(self, jobs: int) -> None:
        self.loop.in_flight -= jobs
