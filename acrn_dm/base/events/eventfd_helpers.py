"""Threads that write eventfds for us where the kernel can't: one that hangs hangs alone.

A thread in a write that waits stays there until whoever shares the eventfd makes room or our process ends. So there is
one at most per eventfd, told apart by the kernel's number for it, and not more than ``MOST``.
"""

import errno
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm.base.records import define

log = logging.getLogger(__name__)

MOST = 64  # eventfds with a writer that hangs; what others are signalled then is lost


@define(eq=False)
class Task:
    """An eventfd that is being written. ``fd`` is a descriptor of our own: the other may be closed meanwhile."""

    key: int
    fd: int
    again: bool = False


@define(eq=False)
class Helpers:
    """The threads that write, with their tasks. They are started on demand and stay."""

    write: Callable[[int, int], object] = os.eventfd_write
    lost: int = attrs.field(default=0, init=False)
    _tasks: dict[int, Task] = attrs.field(factory=dict, init=False)  # queued and in progress
    _queue: "deque[Task]" = attrs.field(factory=deque, init=False)
    _idle: int = attrs.field(default=0, init=False)
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False, repr=False)

    def signal(self, eventfd: int) -> None:
        """Have 1 added to the count soon. Never blocks. Raises OSError for what is no eventfd."""
        if not _has_room(eventfd):
            return  # readable anyway
        key = identity(eventfd)
        with self._changed:
            if key in self._tasks:
                self._tasks[key].again = True
            elif len(self._tasks) < MOST:
                self._add(Task(key, os.dup(eventfd)))
            else:
                self._lose()

    def _add(self, task: Task) -> None:
        self._tasks[task.key] = task
        self._queue.append(task)
        if self._idle >= len(self._queue):
            self._changed.notify()
        else:
            threading.Thread(target=self._run, name="eventfd", daemon=True).start()

    def _lose(self) -> None:
        self.lost += 1
        if self.lost & (self.lost - 1) == 0:  # 1, 2, 4, 8, ...
            log.error("%d eventfds are kept full by their other side; %d signals to others were lost", MOST, self.lost)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._queue)
                self._idle -= 1
                task = self._queue.popleft()
            self._write(task)

    def _write(self, task: Task) -> None:
        """A signal that comes while this one is written may be news to a reader that has seen this one."""
        while True:
            try:
                self.write(task.fd, 1)
            except BlockingIOError:
                pass  # full after all
            except OSError as e:
                log.error("writing an eventfd: %s", e)
            with self._changed:
                if not task.again:
                    del self._tasks[task.key]
                    break
                task.again = False
        os.close(task.fd)


def identity(eventfd: int) -> int:
    """The kernel's number of the eventfd, whatever descriptor it is. Raises OSError for what is none."""
    with open(f"/proc/self/fdinfo/{eventfd}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "eventfd-id":
                return int(value)
    raise OSError(errno.EINVAL, "no eventfd")


def _has_room(eventfd: int) -> bool:
    poller = select.poll()
    poller.register(eventfd, select.POLLOUT)
    return any(events & (select.POLLOUT | select.POLLNVAL) for _, events in poller.poll(0))
