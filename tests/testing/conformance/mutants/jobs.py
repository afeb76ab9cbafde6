"""Jobs, each in a process of its own that is forked from this one, as many at a time as there are processors.

What a job does to its process (a module that is changed, a thread that never ends, a file left open) nobody else sees.
This module imports nothing of the package, so that jobs can begin without it.
"""

import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

LIMIT_S = 120.0  # a job that takes longer is stuck

Job = Callable[[], Any]  # returns what JSON can carry


@attrs.define(eq=False)
class _Child:
    """One job under way."""

    name: str
    pid: int
    pipe: int
    until: float
    said: bytes = b""


def run(jobs: Iterable[tuple[str, Job]], at_once: int | None = None) -> Iterator[tuple[str, Any]]:
    """Yield name and result of each job as it ends; the result of one that failed, or was stuck, is its last words."""
    waiting, count = iter(jobs), at_once or len(os.sched_getaffinity(0))
    with selectors.DefaultSelector() as selector:
        running = sum(_start(waiting, selector) for _ in range(count))
        while running:
            for key, _ in selector.select(0.2):
                child: _Child = key.data
                data = os.read(child.pipe, 1 << 16)
                child.said += data
                if not data:
                    yield _end(child, selector)
                    running += _start(waiting, selector) - 1
            for key in selector.get_map().values():
                if time.monotonic() > key.data.until:
                    os.kill(key.data.pid, signal.SIGKILL)


def _start(waiting: Iterator[tuple[str, Job]], selector: selectors.BaseSelector) -> int:
    """Fork the next job; returns how many were there: 1 or 0."""
    found = next(waiting, None)
    if found is None:
        return 0
    name, job = found
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _work(job, theirs)
    os.close(theirs)
    selector.register(ours, selectors.EVENT_READ, _Child(name, pid, ours, time.monotonic() + LIMIT_S))
    return 1


def _work(job: Job, pipe: int) -> None:
    """The child's whole life, too short for what a collection would find."""
    gc.disable()
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)
        answer = json.dumps(job())
        status = 0
    except BaseException as e:
        answer = json.dumps(f"{type(e).__name__}: {e}")
    try:
        with open(pipe, "w", encoding="utf-8") as file:
            file.write(answer)
    finally:
        os._exit(status)  # no thread is waited for


def _end(child: _Child, selector: selectors.BaseSelector) -> tuple[str, Any]:
    selector.unregister(child.pipe)
    os.close(child.pipe)
    os.waitpid(child.pid, 0)
    return child.name, json.loads(child.said) if child.said else "stuck, or dead without a word"
