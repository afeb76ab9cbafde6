"""This host as a place where acrn-dm runs: where KVM is fit for it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.process import Command, Result

_CHUNK = 65536


class HostProcess:
    """A process of this host, as ``process.Process``."""

    def __init__(self, command: Command, *, cwd: str | Path | None, env: Mapping[str, str]) -> None:
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(part) for part in command]
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise HarnessError(f"{argv[0]} could not be started: {error}") from error
        self._output = bytearray(), bytearray()
        pipes = zip((self._process.stdout, self._process.stderr), self._output, strict=True)
        self._readers = [
            threading.Thread(target=_gather, args=pair, name="guest-reader", daemon=True) for pair in pipes
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        """Its standard output so far."""
        return self._output[0].decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Its standard error so far."""
        return self._output[1].decode(errors="replace")

    @property
    def returncode(self) -> int | None:
        """None while it runs, or while its output may still come."""
        status = self._process.poll()
        return None if status is None or any(reader.is_alive() for reader in self._readers) else status

    def write(self, data: bytes) -> None:
        """Send to its standard input; lost when it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data)

    def signal(self, number: int) -> None:
        """Send a signal to its process group, if that is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait(self, timeout: float = 60.0) -> Result:
        """Its end. Past *timeout* seconds it and what it started are killed; raises HarnessTimeout."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._close()
            told = f"stdout: ...{self.stdout[-2000:]!r}, stderr: ...{self.stderr[-2000:]!r}"
            raise HarnessTimeout(f"no end within {timeout:g} s; {told}") from error
        self._close()
        return Result(rc=status, stdout=self.stdout, stderr=self.stderr, seconds=time.monotonic() - self._started)

    def _close(self) -> None:
        """What the process started may keep its pipes: what that says later is not waited for."""
        assert self._process.stdin is not None
        for reader in self._readers:
            reader.join(1.0)
        self._process.stdin.close()


def _gather(pipe: IO[bytes], output: bytearray) -> None:
    with pipe:
        while data := pipe.read(_CHUNK):
            output += data


class Host:
    """Starts processes on this host."""

    def spawn(
        self, command: Command, *, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> HostProcess:
        """Start a program (sequence) or a shell command line (string) in its own session, and return at once."""
        return HostProcess(command, cwd=cwd, env=env or {})
