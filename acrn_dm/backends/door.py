"""The way to the processes behind one device: a socket at which one listens, or what starts them."""

import socket
from pathlib import Path
from typing import Protocol, Self

from acrn_dm.backends.wire.channel import connect, problem
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.records import frozen
from acrn_dm.virtio.device import VirtioDevice


class Door(Protocol):
    """The way to one back-end after another."""

    @property
    def place(self) -> str:
        """Where the back-end is, in words."""

    def problem(self) -> str | None:
        """Why there would be none, as one line; opens nothing."""

    def connect(self) -> socket.socket:
        """Connect to the next one. Raises HostError where there is none now, PeerError where there will be none."""

    def lost(self, error: HostError) -> HostError:
        """The connection ended because of *error*; returns the error that tells it best."""

    def close(self) -> None:
        """No other back-end is wanted. Idempotent."""


@frozen(kw_only=True)
class SocketDoor:
    """The socket at *path*, at which some process listens, or will."""

    path: Path

    @classmethod
    def of(cls, device: VirtioDevice) -> Self:
        """That of *device*. Raises ConfigError where its options name none."""
        path = device.placement.path
        if path is None:
            raise ConfigError("the vhost-user backend needs a socket", option=device.name)
        return cls(path=path)

    @property
    def place(self) -> str:
        """Its path."""
        return f"vhost-user back-end at {self.path}"

    def problem(self) -> str | None:
        """Whether there is a socket; whether somebody serves it only connecting would show."""
        return problem(self.path)

    def connect(self) -> socket.socket:
        """Connect to it. Raises HostError."""
        return connect(self.path)

    def lost(self, error: HostError) -> HostError:
        """Nothing more is known."""
        return error

    def close(self) -> None:
        """It is another's."""
