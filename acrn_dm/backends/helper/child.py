"""One helper process, from its start to its end: ``python -m acrn_dm.export.helper NAME``.

It gets its order as a file at its standard input, one end of a socket for vhost-user and one of a pipe. Into the pipe
it writes ``READY`` when its device is open, or why it is not. It is in a session of its own, so that what is typed at
the machine's terminal does not reach it, and ends when the machine's end of the socket does.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
from typing import Protocol

import attrs

from acrn_dm.backends.wire.order import READY
from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.base.process.python_program import start_program
from acrn_dm.base.records import define

EXIT_CONFIG = 78  # what its line says is the user's
MAX_LINE = 4096
PROGRAM = "acrn_dm.export.helper"
FORBIDDEN = ": it called what its sandbox forbids"
LAST_WORDS_S = 0.2  # a process's socket is closed some microseconds before the process is gone


class Process(Protocol):
    """A ``subprocess.Popen``, as far as it is used here."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


@define(eq=False)
class Child:
    """The process; who made it calls ``close`` in the end. *connection* is our end of the socket until it is taken."""

    process: Process = attrs.field(repr=False)
    connection: socket.socket
    report: int
    taken: bool = attrs.field(default=False, init=False)
    ready: bool = attrs.field(default=False, init=False)
    said: bytes = attrs.field(default=b"", init=False)

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether its device is open by now, or within *seconds*. Raises HostError or ConfigError, its own line, where
        it will not be.
        """
        if not self.ready and select.select([self.report], [], [], seconds)[0]:
            self.said = os.read(self.report, MAX_LINE)
            self.ready = self.said == READY
            if not self.ready:
                raise self.failure(LAST_WORDS_S)
        return self.ready

    def failure(self, seconds: float = 0.0) -> AcrnDmError:
        """Why its device is not open: what it said, else how it ended."""
        how = f"its process {self.pid} {self.ended(seconds) or 'said nothing'}"
        if self.ready or not self.said:
            return HostError(how)
        line = self.said.decode(errors="replace")
        return ConfigError(line) if self.process.returncode == EXIT_CONFIG else HostError(line)

    def ended(self, seconds: float = 0.0) -> str | None:
        """How it ended, within *seconds*; None if it has not."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if code < 0:
            with contextlib.suppress(ValueError):
                number = signal.Signals(-code)
                return f"was ended by {number.name}" + FORBIDDEN * (number == signal.SIGSYS)
        return f"ended with exit code {code}"

    def kill(self) -> None:
        """End it whatever it does, if it is not another user's by now; who waits for it sees that."""
        with contextlib.suppress(PermissionError):
            self.process.kill()

    def take(self) -> socket.socket:
        """Our end of its socket, which is the caller's from now on."""
        self.taken = True
        return self.connection

    def hang_up(self) -> None:
        """Close our end of its socket, unless somebody has taken it, who does that: the process ends then.
        Idempotent.
        """
        if not self.taken:
            self.connection.close()

    def close(self) -> None:
        """Give back what is ours of it. Idempotent."""
        self.hang_up()
        report, self.report = self.report, -1
        if report >= 0:
            os.close(report)


def start(name: str, order: bytes) -> Child:
    """Start the process of the device *name*. Raises HostError."""
    with contextlib.ExitStack() as stack:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            stack.callback(theirs.close)
            failed = stack.enter_context(contextlib.ExitStack())
            failed.callback(ours.close)
            report, end = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, end)
            failed.callback(os.close, report)
            fds = (theirs.fileno(), end)
            process = start_program(PROGRAM, [name, *map(str, fds)], order, fds)
        except OSError as e:
            raise HostError.from_os("starting a process for a device", e) from e
        failed.pop_all()
    return Child(process, ours, report)
