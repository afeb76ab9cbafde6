"""A broker, and processes that it starts, which are forks: to start Python below an emulation takes as long as a
kernel's boot. Nothing else is otherwise; as executed ones they are seen in ``tests.lab.machines``.
"""

import importlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from acrn_dm.backends.broker import client

LOOK_S, MAX_PACKET = 0.01, 1 << 17


class Forked:
    """A process as ``subprocess.Popen`` has it, as far as it is asked, which does *work* and nothing else."""

    def __init__(self, work: Callable[[], int]) -> None:
        assert threading.active_count() == 1, "threads do not fork"
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            status = work()
        finally:
            os._exit(status)

    def wait(self, timeout: float) -> int:
        until = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                raise subprocess.TimeoutExpired("a fork", timeout)
            else:
                time.sleep(LOOK_S)
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Waiting:
    """The process that becomes the broker."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = Forked(self._wait)
        self._theirs.close()

    def _wait(self) -> int:
        self._ours.close()
        told, fds, _, _ = socket.recv_fds(self._theirs, MAX_PACKET, 1)
        return execute(client.PROGRAM, [str(fds[0])], told, fds) if told else 0

    def become(self, module: str, words: Sequence[str], told: bytes, fds: Sequence[int]) -> Forked:
        assert (module, words) == (client.PROGRAM, [str(fd) for fd in fds])
        socket.send_fds(self._ours, [told], fds)
        return self._process


def execute(module: str, words: Sequence[str], told: bytes, fds: Sequence[int]) -> int:
    """What a process does that executes *module*."""
    given, nothing = os.memfd_create("told"), os.open(os.devnull, os.O_WRONLY)
    os.write(given, told)
    os.lseek(given, 0, os.SEEK_SET)
    os.dup2(given, 0)
    os.dup2(nothing, 1)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in fds:
            try:
                os.close(number)
            except OSError:  # that of the listing
                continue
    return int(importlib.import_module(module).main(words))


def fork_broker() -> None:
    """Have the broker of this process be a fork of it as it is now, while it has one thread."""
    importlib.import_module(client.PROGRAM)
    client.start_program = Waiting().become  # type: ignore[assignment]
