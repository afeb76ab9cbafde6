"""Processes wherever acrn-dm runs, in the outer VM or on this host, as those who talk with them see them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

Command = str | Sequence[str | Path]  # a shell command line, or a program and its arguments


@attrs.frozen(kw_only=True)
class Result:
    """The end of a process."""

    rc: int  # exit status, or minus the signal's number
    stdout: str
    stderr: str
    seconds: float


class Process(Protocol):
    """A process that was started, whose output gathers here."""

    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""

    def write(self, data: bytes) -> None:
        """Send to its standard input."""

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""

    def wait(self, timeout: float = 60.0) -> Result:
        """Its end. Past *timeout* seconds it and what it started are killed; raises HarnessTimeout."""


class Place(Protocol):
    """A place where processes are started."""

    def spawn(
        self, command: Command, *, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start *command* in its own session with *env* added to the environment there, and return at once."""
