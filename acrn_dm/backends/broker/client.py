"""The machine's end of the broker.

One that has ended, or keeps silent, is asked nothing any more: a late answer would be taken for another's. So who asks
is told PeerError from then on, as by a door behind which nobody will ever be.
"""

import contextlib
import errno
import json
import math
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.backends.broker import CONNECT, DESCRIPTORS, FIRST, KILL, MAX_PACKET, POLL, POOLS, START, set_present
from acrn_dm.backends.helper.child import Child
from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.base.errors import HostError
from acrn_dm.base.process.python_program import start_program
from acrn_dm.base.records import define

PROGRAM = "acrn_dm.backends.broker.process"
PATIENCE_S = 60.0  # for an answer; the first one waits for its start
LOOK_S = 0.005
END_S = 10.0
ENDED = "the broker has ended"


@define(eq=False)
class Broker:
    """The connection. Its methods are any thread's, one at a time. They raise PeerError when the broker has ended."""

    _process: "subprocess.Popen[bytes]" = attrs.field(repr=False)
    _socket: socket.socket
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _lost: str = attrs.field(default="", init=False)  # why nobody asks any more

    def connect(self, path: Path) -> socket.socket:
        """A connection to the socket at *path*. Raises HostError."""
        _, (fd,) = self._ask(CONNECT, os.fspath(path))
        return socket.socket(fileno=fd)

    def start(self, name: str) -> Child:
        """A process for the device *name*. Raises HostError."""
        told, (connection, report) = self._ask(START, name)
        return Child(Brokered(self, told["pid"]), socket.socket(fileno=connection), report)

    def come_first(self, thread: int) -> None:
        """Let a *thread* of this process come before others of the host. Raises HostError."""
        self._ask(FIRST, thread)

    def give_back_pools(self, grown: Mapping[int, int]) -> None:
        """Shrink the host's pools by what they were *grown*, pages by their size, when this process has ended, or has
        no broker any more; it is told once. Raises HostError.
        """
        self._ask(POOLS, {str(size): pages for size, pages in grown.items()})

    def poll(self, pid: int) -> int | None:
        """How process *pid* has ended, as subprocess has it; None: it has not. Raises HostError."""
        code: int | None = self._ask(POLL, pid)[0]["code"]
        return code

    def kill(self, pid: int) -> None:
        """End process *pid*. Raises HostError."""
        self._ask(KILL, pid)

    def close(self) -> None:
        """Its end, which is waited for; devices have none any more. Idempotent."""
        set_present(None)
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)

    def _ask(self, do: str, what: object) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            answer, fds = self._exchange(json.dumps({"do": do, "what": what}).encode(), DESCRIPTORS[do])
        told: dict[str, Any] = json.loads(answer)
        if "error" in told:
            raise HostError(told["error"])
        if len(fds) != DESCRIPTORS[do]:
            close_all(fds)
            raise HostError(
                "taking descriptors of the broker", err=errno.EMFILE
            )  # recvmsg leaves them out, and says so
        return told, fds

    def _exchange(self, packet: bytes, most: int) -> tuple[bytes, list[int]]:
        """Under the lock."""
        if not self._lost:
            try:
                self._socket.send(packet)
                answer, fds, _, _ = socket.recv_fds(self._socket, MAX_PACKET, most, socket.MSG_CMSG_CLOEXEC)
                if answer:
                    return answer, list(fds)
                self._lost = ENDED
            except TimeoutError:
                self._lost = f"the broker has not answered within {self._socket.gettimeout():g} s"
            except OSError:
                self._lost = ENDED
            self._socket.close()
        raise PeerError(self._lost)


@define(eq=False)
class Brokered:
    """A process that the broker has started, as far as it is a ``subprocess.Popen``."""

    _broker: Broker
    pid: int
    returncode: int | None = attrs.field(default=None, init=False)

    def wait(self, timeout: float | None = None) -> int:
        """How it ended. Raises TimeoutExpired, at once where nobody can tell any more, and HostError."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            try:
                self.returncode = self._broker.poll(self.pid)
            except PeerError:
                until = -math.inf
            if self.returncode is None:
                if time.monotonic() >= until:
                    raise subprocess.TimeoutExpired(str(self.pid), until)
                time.sleep(LOOK_S)
        return self.returncode

    def kill(self) -> None:
        """End it. Raises HostError, PeerError."""
        if self.returncode is None:
            self._broker.kill(self.pid)


def employ(sockets: Mapping[str, str], devices: Mapping[str, bytes], firsts: int = 0) -> Broker:
    """A broker from now on, for all of this process, with these rules: see ``process``. Raises HostError."""
    orders = {name: order.decode() for name, order in devices.items()}
    rules = {"sockets": dict(sockets), "devices": orders, "firsts": firsts, "machine": os.getpid()}
    with contextlib.ExitStack() as stack:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            stack.callback(theirs.close)
            failed = stack.enter_context(contextlib.ExitStack())
            failed.callback(ours.close)
            ours.settimeout(PATIENCE_S)
            fd = theirs.fileno()
            process = start_program(PROGRAM, [str(fd)], json.dumps(rules).encode(), [fd])
        except OSError as e:
            raise HostError.from_os("starting the broker", e) from e
        failed.pop_all()
    broker = Broker(process, ours)
    set_present(broker)
    return broker
