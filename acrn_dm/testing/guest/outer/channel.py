"""Processes in the outer VM, and the channel to its agent over which they are started, fed and heard."""

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.process import Command, Result

_INPUT_CHUNK = 49152
GONE = "the outer VM is gone"


class GuestProcess:
    """A process in the outer VM. Its output gathers here; ``on_output`` gets it too as it comes, in another thread."""

    def __init__(self, channel: "Channel", number: int, on_output: Callable[[bytes], None] | None) -> None:
        self._channel = channel
        self._number = number
        self._on_output = on_output
        self._started = time.monotonic()
        self._output = {1: bytearray(), 2: bytearray()}
        self._changed = threading.Condition()
        self._rc: int | None = None
        self._error: str | None = None
        self._seconds = 0.0

    @property
    def stdout(self) -> str:
        return self._output[1].decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self._output[2].decode(errors="replace")

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._rc

    def wait(self, timeout: float = 60.0) -> Result:
        """Its end. Past ``timeout`` seconds it and what it started (its session) are killed; raises HarnessTimeout."""
        if not self._ended_within(timeout):
            self.signal(9)
            self._ended_within(5.0)
            raise HarnessTimeout(
                f"no end within {timeout:g} s; stdout: ...{self.stdout[-2000:]!r}, stderr: ...{self.stderr[-2000:]!r}"
            )
        if self._rc is None:
            raise HarnessError(self._error or GONE)
        return Result(rc=self._rc, stdout=self.stdout, stderr=self.stderr, seconds=self._seconds)

    def wait_for(self, text: str, timeout: float = 60.0) -> str:
        """Its output once ``text`` is in stdout. HarnessTimeout past ``timeout``, HarnessError if it ends without."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.stdout or self.over, timeout)
            if text in self.stdout:
                return self.stdout
        kind = HarnessError if self.over else HarnessTimeout
        raise kind(f"no {text!r} in the output; stdout: {self.stdout[-2000:]!r}, stderr: {self.stderr[-2000:]!r}")

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        for start in range(0, len(data), _INPUT_CHUNK):
            chunk = base64.b64encode(data[start : start + _INPUT_CHUNK]).decode()
            self._channel.send({"op": "input", "id": self._number, "data": chunk})

    def close_stdin(self) -> None:
        self._channel.send({"op": "close", "id": self._number})

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        self._channel.send({"op": "signal", "id": self._number, "number": number})

    @property
    def over(self) -> bool:
        """Whether it has ended, or was never started."""
        return self._rc is not None or self._error is not None

    def _ended_within(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.over, timeout)

    def take(self, message: Mapping[str, Any]) -> None:
        """One message of the agent about this process."""
        data = base64.b64decode(message.get("data", ""))
        with self._changed:
            if data:
                self._output[message["fd"]] += data
            elif "exit" in message:
                self._rc = message["exit"]
            else:
                self._error = message["error"]
            self._seconds = time.monotonic() - self._started
            self._changed.notify_all()
        if data and self._on_output is not None:
            self._on_output(data)


class Channel:
    """The host's end of the agent's port (see ``agent``). Many threads may start processes over it at once."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._processes: dict[int, GuestProcess] = {}
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._receive, name="lab-agent", daemon=True)
        self.dead = False  # the other end is gone
        self._reader.start()

    def wait_ready(self, timeout: float) -> bool:
        """Whether the agent has said that it is there, or the channel has ended, within *timeout* seconds."""
        return self._ready.wait(timeout)

    def spawn(
        self,
        command: Command,
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        stem: Sequence[str] = (),
    ) -> GuestProcess:
        """Start a program (sequence) or a shell command line (string) in its own session, and return at once."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(part) for part in command]
        number = next(self._numbers)
        process = self._processes[number] = GuestProcess(self, number, on_output)
        place = {"cwd": str(cwd) if cwd else None, "env": dict(env or {})}
        self.send({"op": "start", "id": number, "argv": argv, **place, "stem": list(stem)})
        return process

    def send(self, order: Mapping[str, object]) -> None:
        """Give the agent an order. Raises HarnessError."""
        if self.dead:
            raise HarnessError(GONE)
        try:
            with self._sending:
                self._port.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            raise HarnessError(f"{GONE}: {error}") from error

    def join(self) -> None:
        """Wait until what was heard is handed on; the other end must have gone."""
        self._reader.join()

    def _receive(self) -> None:
        """The reader thread: hands each message to the process it is about, until the other end closes."""
        with contextlib.suppress(OSError), self._port.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "id" in message:
                    self._processes[message["id"]].take(message)
                else:
                    self._ready.set()
        self.dead = True
        self._ready.set()
        for process in list(self._processes.values()):
            if not process.over:
                process.take({"error": GONE})
