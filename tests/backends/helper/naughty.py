"""A device that does what its driver tells it: what a plugin's code could be made to do."""

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm import DeviceContext, DeviceType, HostError, Needs, Queue, Resources, VirtioDevice, hookimpl

PTRACE, PTRACE_ATTACH = 101, 16


@attrs.frozen(kw_only=True)
class Options:
    """*named* is a file that it says it reads."""

    named: str = ""


class Naughty(VirtioDevice):
    """A queue of orders: a word, and where it takes one a path behind a space."""

    device_id = 4

    def __init__(self, config: Options, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config

    def sandbox_needs(self) -> Needs:
        return Needs(reads=[Path(self.config.named)] if self.config.named else [])

    def realize(self, resources: Resources) -> None:
        """Opening is before the sandbox."""
        Path("/etc/passwd").read_bytes()

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch(1):
            chain.write(self.obey(chain.read().decode()).encode())
            queue.push(chain)

    def obey(self, text: str) -> str:
        """What became of an order."""
        order, _, path = text.partition(" ")
        try:
            getattr(self, order)(path)
        except HostError as e:
            return str(e)
        except OSError as e:
            return errno.errorcode[e.errno or 0]
        return "ok"

    def read(self, path: str) -> None:
        Path(path).read_bytes()

    def write(self, path: str) -> None:
        Path(path).write_bytes(b"")

    def told(self, path: str) -> None:
        try:
            self.read(path)
        except OSError as e:
            raise HostError.from_os(f"reading {path}", e) from e

    def connect(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)

    def fork(self, path: str) -> None:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

    def kill(self, path: str) -> None:
        os.kill(os.getppid(), signal.SIGCONT)

    def execute(self, path: str) -> None:
        os.execv(path, [path, "600"])

    def trace(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(PTRACE, PTRACE_ATTACH, os.getppid(), 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "")


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    return [DeviceType(name="naughty", summary="does what it is told", config=Options, create=Naughty)]
