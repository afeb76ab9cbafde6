"""Eventfds that somebody else shares, used so that we never wait for them.

Flags belong to the open file, which a process that was given the eventfd can change at any time; so can it fill and
empty the count as fast as we look at it. ``signal`` and ``drain`` rely on neither.
"""

import logging
import os
import select
import sys
import threading
from collections.abc import Callable

from acrn_dm.base.events._aio import KernelSignal
from acrn_dm.base.events.eventfd_helpers import Helpers

log = logging.getLogger(__name__)

# What to watch an eventfd for in an epoll set. By edge: a count that stays, as that of one made with EFD_SEMAPHORE does
# for 2^64 reads, is reported once for each write and not all the time.
SIGNALLED = select.EPOLLIN | select.EPOLLET
UNWATCHED = select.EPOLLET  # EPOLLERR, which stands for the highest count, can't be switched off

Signal = Callable[[int], None]

_signal: Signal | None = None
_choosing = threading.Lock()


def drain(eventfd: int) -> int:
    """Read an eventfd's count and leave it at 0 (one less, if it is a semaphore). Never blocks."""
    count = bytearray(8)
    try:
        os.preadv(eventfd, (count,), -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    return int.from_bytes(count, sys.byteorder)


def signal(eventfd: int) -> None:
    """Add 1 to an eventfd's count and wake whoever waits for it; a full one stays full. Never blocks. Any thread.

    Costs 0.8 us, twice a plain write. Raises OSError for what is no eventfd.
    """
    (_signal or _choose())(eventfd)


def _choose() -> Signal:
    """The kernel, where it can, else threads that may hang in our place."""
    global _signal
    with _choosing:
        if _signal is None:
            try:
                _signal = _by_kernel()
            except OSError as e:
                log.info("eventfds are signalled by helper threads: asynchronous I/O: %s", e)
                _signal = Helpers().signal
    return _signal


def _by_kernel() -> Signal:
    """Raises OSError if it does not work on this host."""
    kernel = KernelSignal()
    probe = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        kernel.signal(probe)
        os.eventfd_read(probe)  # it has arrived when signal returns, or this raises
    finally:
        os.close(probe)
    return kernel.signal


def _forget() -> None:
    """An AIO context belongs to an address space, and threads do not fork."""
    global _signal, _choosing
    _signal, _choosing = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
