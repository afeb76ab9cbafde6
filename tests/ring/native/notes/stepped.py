"""What a process leaves in shared memory when it dies: seen by executing it one instruction at a time."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

TRACEME, KILL, SINGLESTEP = 0, 8, 9  # ptrace(2)
MAX_STEPS = 200_000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def states(operation: Callable[[], object], look: Callable[[], bytes]) -> Iterator[None]:
    """Execute *operation* in a process forked of this one; comes back each time that what *look* returns is new.

    Skips the test where processes must not be traced.
    """
    pid = os.fork()
    if not pid:
        _be_traced(operation)
    try:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            pytest.skip("processes can't be traced here")
        seen = look()
        yield
        for _ in range(MAX_STEPS):
            _libc.ptrace(SINGLESTEP, pid, None, None)
            _, status = os.waitpid(pid, 0)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, "the operation failed"
                return
            if (now := look()) != seen:
                seen = now
                yield
        raise AssertionError("it does not end")
    finally:
        if not os.WIFEXITED(status):
            _libc.ptrace(KILL, pid, None, None)
            os.waitpid(pid, 0)


def _be_traced(operation: Callable[[], object]) -> None:
    """Never returns."""
    gc.disable()
    if _libc.ptrace(TRACEME, 0, None, None) != 0:
        os._exit(1)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        operation()
    except BaseException:
        os._exit(1)
    os._exit(0)


def lines(operation: Callable[[], object], look: Callable[[], bytes]) -> list[bytes]:
    """Execute *operation*; returns what *look* said after each line of Python of it, where that was new."""
    seen = [look()]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if (now := look()) != seen[-1]:
            seen.append(now)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(before)
    return seen
