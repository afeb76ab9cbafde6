"""The placement of a device's data plane: which backend moves the data, and what stands behind the device.

A device says it itself (``VirtioDevice.placement``); the user, who may say it too, wins (``choice``).
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs

from acrn_dm.base.records import frozen

USERSPACE, VHOST_USER = "vbs-u", "vhost-user"


@frozen(kw_only=True)
class Placement:
    """A placement. Known when the device is built; nothing is open then."""

    backend: str = USERSPACE  # name of the ``BackendType``
    path: Path | None = None  # where the backend is to be found: the socket of a ``vhost-user`` one
    optional: bool = False  # where the host can't do ``backend``, this process moves the data, and the log says so
    text: str = attrs.field()  # for the ``--dry-run`` table, in a word or two: what stands behind the device

    @text.default
    def _backend_itself(self) -> str:
        return self.backend


def at_socket(path: Path) -> Placement:
    """The placement of a device whose data another process moves, which listens at *path* (``vhost-user=SOCKET``)."""
    return Placement(backend=VHOST_USER, path=path, text=f"vhost-user {path}")


@runtime_checkable
class Placed(Protocol):
    """A function that tells where what it does is done."""

    @property
    def placement(self) -> Placement:
        """It is the same for the function's whole life."""


def said_by(device: object) -> Placement:
    """The placement of a device that says parts of it as attributes of its own: ``backend_name``, ``backend_path``,
    ``backend_optional`` and ``backend_text``. One line is enough for one of them, and none for the defaults.
    """
    backend = getattr(device, "backend_name", USERSPACE)
    return Placement(
        backend=backend,
        path=getattr(device, "backend_path", None),
        optional=getattr(device, "backend_optional", False),
        text=getattr(device, "backend_text", backend),
    )
