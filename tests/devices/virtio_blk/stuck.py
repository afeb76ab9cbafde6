"""System calls of worker threads that do not come back until a test lets them: a host that is slow, or stuck."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs

WAIT_S = 30.0


@attrs.define(eq=False)
class Stuck:
    """``entered`` is set when a call has come, all wait for ``release``."""

    entered: threading.Event = attrs.field(factory=threading.Event)
    release: threading.Event = attrs.field(factory=threading.Event)
    calls: int = 0
    bytes: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def instead_of(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """*real* on worker threads, once it is let."""

        def call(fd: int, *args: Any) -> Any:
            if not threading.current_thread().name.startswith("blk-"):
                return real(fd, *args)
            with self._lock:
                self.calls += 1
                self.bytes += sum(len(view) for view in args[0]) if args else 0
            self.entered.set()
            assert self.release.wait(WAIT_S)
            return real(fd, *args)

        return call


@contextmanager
def stuck(name: str) -> Iterator[Stuck]:
    """The system call ``os.name`` waits on worker threads; it is let go at the end in any case."""
    host = Stuck()
    with mock.patch.object(os, name, host.instead_of(getattr(os, name))):
        try:
            yield host
        finally:
            host.release.set()
