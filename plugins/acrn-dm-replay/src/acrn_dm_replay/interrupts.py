"""Interrupts of the machine: what has come, by a call or by an eventfd, and waiting for it.

There is no interrupt controller: a message is kept until the script asks for it. Eventfds are looked at while it waits.
"""

import contextlib
import errno
import math
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable

import attrs

from acrn_dm import HostError, IrqFd, MsiMessage


@attrs.define(eq=False)
class Interrupts:
    """See the module. Every method may be called from any thread."""

    _messages: Counter[int] = attrs.field(factory=Counter, init=False)  # not asked for yet, by their data
    _levels: dict[int, bool] = attrs.field(factory=dict, init=False)
    _calls: dict[int, MsiMessage] = attrs.field(factory=dict, init=False)  # by the eventfd of each
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _news: int = attrs.field(init=False)  # an eventfd: look again

    @_news.default
    def _make_news(self) -> int:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def inject(self, message: MsiMessage) -> None:
        """A message has come."""
        with self._lock:
            self._messages[message.data] += 1
        self.look()

    def set_level(self, gsi: int, asserted: bool) -> None:
        """A line has another level."""
        with self._lock:
            self._levels[gsi] = asserted
        self.look()

    def bind(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
        if not isinstance(binding.target, MsiMessage):
            raise HostError("irqfd", err=errno.EINVAL, hint="lines are set by a call")
        with self._lock:
            if assign and binding.fd in self._calls:
                raise HostError("irqfd", err=errno.EBUSY)
            if not assign and self._calls.get(binding.fd) != binding.target:
                raise HostError("irqfd", err=errno.ENOENT)
            if assign:
                self._calls[binding.fd] = binding.target
            else:
                self._drain(binding.fd)
                del self._calls[binding.fd]
        self.look()

    def take(self, data: int) -> bool:
        """Whether a message with *data* has come that nobody has taken; takes it."""
        with self._lock:
            if not self._messages[data]:
                return False
            self._messages[data] -= 1
            return True

    def level(self, gsi: int) -> bool:
        """Level of a line."""
        with self._lock:
            return self._levels.get(gsi, False)

    def wait(self, met: Callable[[], bool], seconds: float) -> bool:
        """Wait until *met* says so; False when it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                for fd in self._calls:
                    self._drain(fd)
                fds = [self._news, *self._calls]
            if met():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            _readable(fds, left)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._news)

    def look(self) -> None:
        """Let whoever waits look again."""
        os.eventfd_write(self._news, 1)

    def clear(self) -> None:
        """Power-on: nothing is pending, nothing bound."""
        with self._lock:
            self._messages.clear()
            self._levels.clear()
            self._calls.clear()

    def close(self) -> None:
        """Give the eventfd back."""
        os.close(self._news)

    def _drain(self, fd: int) -> None:
        """Count what was written to *fd* as one message, as an interrupt controller does."""
        if _readable([fd], 0):
            os.eventfd_read(fd)
            self._messages[self._calls[fd].data] += 1


def _readable(fds: list[int], seconds: float) -> bool:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(math.ceil(seconds * 1000)))
