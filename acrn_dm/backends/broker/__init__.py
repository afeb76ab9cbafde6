"""The broker: a process beside a machine's that keeps the rights which that one gives up, and does a short list of
things with them, by rules that were fixed when it was started.

``client`` is the machine's end, ``process`` the program, and here is what both say to one another: a JSON object a
packet. A request has ``do`` and ``what``: connect to a socket's path, start a process of a device by its name, poll or
kill a process that was started, have a thread of the machine's come before others; and once, before the guest runs,
what the host's pools of huge pages are to be shrunk by in the end. An answer has ``error``, where it was not done; else
``pid`` of a start, ``code`` of a poll, null while the process lives; and the descriptors.
"""

from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from acrn_dm.backends.helper.child import Child

CONNECT, START, POLL, KILL, FIRST, POOLS = "connect", "start", "poll", "kill", "first", "pools"
# Of an answer: a connection, and what the process reports by.
DESCRIPTORS = {CONNECT: 1, START: 2, POLL: 0, KILL: 0, FIRST: 0, POOLS: 0}
MAX_PACKET = 1 << 14


class Broker(Protocol):
    """The broker, as far as devices ask it. Any thread."""

    def connect(self, path: Path) -> socket:
        """A connection to the socket at *path*. Raises HostError."""

    def start(self, name: str) -> "Child":
        """A process for the device *name*. Raises HostError."""

    def come_first(self, thread: int) -> None:
        """Let a *thread* of this process come before others of the host. Raises HostError."""


_present: list[Broker] = []  # one at most: there is one sandbox


def present() -> Broker | None:
    """The broker of this process, if it has one."""
    return _present[0] if _present else None


def set_present(broker: Broker | None) -> None:
    """Have devices ask that one."""
    _present[:] = [] if broker is None else [broker]
