"""The watch over a device's code: what it raises that is no fault of its driver's, wherever that ends up.

An exception out of a device costs its driver a reset, a line in the log, or a thread; the guest only sees that
something does not work. Here it is kept with its name.
"""

import logging
import threading
from types import TracebackType
from typing import Any, Self

from acrn_dm.base.errors import GuestError


class Watch(logging.Handler):
    """A collector of exceptions while it is entered: of log records, observers, and threads that died of one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []  # as text: an exception refers to frames, and those to guest memory

    def note(self, error: BaseException | None) -> None:
        """Keep *error*, each kind once, unless it is the driver's fault."""
        text = f"{type(error).__name__}: {error}"
        if error is not None and not isinstance(error, GuestError) and text not in self.found:
            self.found.append(text)

    def emit(self, record: logging.LogRecord) -> None:
        """A record of the package's: its exception counts."""
        if record.exc_info and isinstance(record.exc_info, tuple):
            self.note(record.exc_info[1])

    def __enter__(self) -> Self:
        log = logging.getLogger("acrn_dm")
        self._level = log.level
        if log.getEffectiveLevel() > logging.ERROR:  # silence asked for is no deafness
            log.setLevel(logging.ERROR)
        log.addHandler(self)
        self._hook, threading.excepthook = threading.excepthook, self._thread_died
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        threading.excepthook = self._hook
        log = logging.getLogger("acrn_dm")
        log.removeHandler(self)
        log.setLevel(self._level)

    def _thread_died(self, args: Any) -> None:
        self.note(args.exc_value)
