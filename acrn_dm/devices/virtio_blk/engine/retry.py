"""Requests to retry: the host failed them, and they wait, unanswered, until the guest is resumed.

They fail on I/O loops and are resumed on the main loop, while a control thread may stop the device: one lock, held for
a few statements, says whose they are.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from acrn_dm.base.records import define

J = TypeVar("J")


@define(eq=False)
class RetryQueue(Generic[J]):
    """The jobs of one device that wait. *pause* asks for the guest to stand still, because of the job it gets, and says
    whether it will.
    """

    pause: Callable[[J], bool]
    releases: int = attrs.field(default=0, init=False)
    _jobs: list[J] = attrs.field(factory=list, init=False)
    _going: list[J] = attrs.field(factory=list, init=False)  # released, and waiting for their loop
    _closed: bool = attrs.field(default=True, init=False)  # nothing is kept while the device is stopped
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def open(self) -> None:
        """The device has started."""
        with self._lock:
            self._closed = False

    def keep(self, job: J, began: int, submit: Callable[[J], None]) -> bool:
        """Keep *job* until ``release``; False where that would be for ever. The first one asks for the pause.

        One that *began* before the last of the ``releases`` failed by what has been mended since: *submit* it again.
        """
        with self._lock:
            if self._closed:
                return False
            if began != self.releases:
                submit(job)
                return True
            if not self._jobs and not self.pause(job):
                return False
            self._jobs.append(job)
            return True

    def release(self) -> None:
        """The guest is resumed: what is kept is for ``retry``; what fails then asks for a pause anew."""
        with self._lock:
            self.releases += 1
            self._going += self._jobs
            self._jobs = []

    def retry(self, wanted: Callable[[J], bool], submit: Callable[[J], None]) -> None:
        """*submit* the released jobs that are *wanted*. Nothing is submitted any more once ``close`` has returned."""
        with self._lock:
            jobs, self._going = self._going, []
            for job in jobs:
                if wanted(job):
                    submit(job)
                else:
                    self._going.append(job)

    def drop(self, whose: Callable[[J], bool]) -> None:
        """Nobody waits any more for the jobs *whose* queue was reset."""
        with self._lock:
            self._jobs = [job for job in self._jobs if not whose(job)]
            self._going = [job for job in self._going if not whose(job)]

    def close(self) -> list[J]:
        """The device stops: return what is here, and keep nothing from now on."""
        with self._lock:
            self._closed = True
            jobs, self._jobs, self._going = self._going + self._jobs, [], []
            return jobs
