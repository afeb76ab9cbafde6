"""A few threads that execute blocking jobs of one queue; results come back to the queue's loop in batches."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

import attrs

from acrn_dm.ioloop import IoLoop

J = TypeVar("J")


@attrs.define(eq=False)
class WorkerPool(Generic[J]):
    """Threads are started as jobs pile up, at most *limit*, and stay until ``close``.

    *execute* runs on a thread and never raises; *finish* gets all jobs that are done by then, on *loop*.
    """

    name: str
    loop: IoLoop
    execute: Callable[[J], None]
    finish: Callable[[list[J]], None]
    limit: int = 8
    _jobs: "SimpleQueue[J | None]" = attrs.field(factory=SimpleQueue, init=False, repr=False)
    _done: list[J] = attrs.field(factory=list, init=False, repr=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False, repr=False)
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

    def drain(self) -> list[J]:
        """Wait until everything submitted is executed; return the results that ``finish`` did not get yet.

        No ``submit`` may run meanwhile. When this returns the loop neither runs ``finish`` nor will it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished == 0)
            left = self._done.copy()
            self._done.clear()
        if left:
            count = len(left)
            self.loop.call_soon(lambda: self._returned(count))
        self.loop.barrier()
        return left

    def close(self) -> None:
        """End the threads, after the jobs they have."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.execute(job)
            with self._changed:
                self._unfinished -= 1
                self._done.append(job)
                first = len(self._done) == 1  # later ones go along with it
                del job  # it refers to guest memory: after drain, no thread may
                if self._unfinished == 0:
                    self._changed.notify_all()
            if first:
                self.loop.call_soon(self._collect)

    def _collect(self) -> None:
        with self._changed:
            batch = self._done.copy()
            self._done.clear()
        self._returned(len(batch))
        if batch:
            self.finish(batch)

    def _returned(self, jobs: int) -> None:
        self.loop.in_flight -= jobs
