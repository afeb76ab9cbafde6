"""The way to the processes behind one device: a socket at which one listens, or to which one connects, or what starts
them.
"""

import logging
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs

from acrn_dm.backends.broker import present
from acrn_dm.backends.wire.channel import VHOST_USER, connect, problem
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.records import define, frozen
from acrn_dm.base.sockets import unix_listener
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.contract.types import DeviceContext
from acrn_dm.virtio.device import VirtioDevice

log = logging.getLogger(__name__)

LOOK_S = 0.02


def _whom(protocol: str) -> str:
    return f"{protocol} {'back-end' if protocol == VHOST_USER else 'server'}"


class Door(Protocol):
    """The way to one back-end after another."""

    @property
    def place(self) -> str:
        """Where the back-end is, in words."""

    @property
    def patience(self) -> float:
        """How many seconds the machine's start waits for the first one."""

    def problem(self) -> str | None:
        """Why there would be none, as one line; opens nothing."""

    def connect(self) -> socket.socket:
        """Connect to the next one. Raises HostError where there is none now, PeerError where there will be none."""

    def lost(self, error: HostError) -> HostError:
        """The connection ended because of *error*; returns the error that tells it best."""

    def close(self) -> None:
        """No other back-end is wanted. Idempotent."""


@runtime_checkable
class Beyond(Protocol):
    """A backend or function whose work a process behind a door does."""

    @property
    def door(self) -> Door:
        """The way there."""


@frozen(kw_only=True)
class SocketDoor:
    """The socket at *path*, at which some process listens, or will."""

    path: Path
    patience: float = 0.0
    protocol: str = VHOST_USER

    @property
    def place(self) -> str:
        """Its path."""
        return f"{_whom(self.protocol)} at {self.path}"

    def problem(self) -> str | None:
        """Whether there is a socket, unless it is waited for; whether somebody serves it only connecting would show."""
        late = self.patience > 0 and (self.path.is_socket() or not self.path.exists())
        return None if late else problem(self.path, self.protocol)

    def connect(self) -> socket.socket:
        """Connect to it, or have the broker do that. Raises HostError."""
        broker = present()
        return connect(self.path, self.protocol) if broker is None else broker.connect(self.path)

    def lost(self, error: HostError) -> HostError:
        """Nothing more is known."""
        return error

    def close(self) -> None:
        """It is another's."""


@define(eq=False, kw_only=True)
class ListeningDoor:
    """The socket at *path*, which is ours, and to which one process after another connects. *name* is the device's."""

    path: Path
    name: str
    patience: float = math.inf
    protocol: str = VHOST_USER
    _listener: UnixListener | None = attrs.field(default=None, init=False)

    @property
    def place(self) -> str:
        """Its path."""
        return f"{_whom(self.protocol)} that connects to {self.path}"

    def problem(self) -> str | None:
        """Whether one can listen there."""
        why = unix_listener.problem(self.path)
        return None if why is None else f"socket {self.path}: {why}"

    def connect(self) -> socket.socket:
        """The next one that waits there; the first time is when it begins to listen. Raises HostError, ConfigError."""
        if self._listener is None:
            self._listener = UnixListener(self.path, self.name)
        try:
            return self._listener.socket.accept()[0]
        except BlockingIOError:
            raise HostError("no process has connected") from None
        except OSError as e:
            raise HostError.from_os(f"accepting a process at {self.path}", e) from e

    def lost(self, error: HostError) -> HostError:
        """Nothing more is known."""
        return error

    def close(self) -> None:
        """Nobody can connect any more."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


def door_of(device: VirtioDevice) -> Door:
    """That of *device*, as its options say. Raises ConfigError where they name no socket."""
    path = device.placement.path
    if path is None:
        raise ConfigError("the vhost-user backend needs a socket", option=device.name)
    return door_at(path, device.context)


def door_at(path: Path, context: DeviceContext, protocol: str = VHOST_USER) -> Door:
    """That at *path* of the device at *context*, in the role that its options say."""
    wait = context.vhost_wait
    if context.vhost_server:
        patience = math.inf if wait is None else wait
        return ListeningDoor(path=path, name=context.name, patience=patience, protocol=protocol)
    return SocketDoor(path=path, patience=wait or 0.0, protocol=protocol)


def wait_at(door: Door, meet: Callable[[], None], off_wanted: Callable[[], bool], who: str) -> None:
    """Have *meet* succeed with the first process that comes, for as long as the user lets *who* wait at *door*.

    Raises what *meet* raised last, or at once a PeerError: who is there and does wrong will not do better.
    """
    until, said = time.monotonic() + door.patience, False
    while True:
        try:
            return meet()
        except PeerError:
            raise
        except HostError:
            if time.monotonic() >= until or off_wanted():
                raise
        if not said:
            said = True
            log.warning("%s waits for the %s", who, door.place)
        time.sleep(LOOK_S)
