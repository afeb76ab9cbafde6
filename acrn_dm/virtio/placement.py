"""Where a device's data is moved: by which backend, and what stands behind the device.

A device says its own wish (``VirtioDevice.placement``); ``backend=NAME`` behind ``-s`` is the user's, who wins.
"""

from pathlib import Path

import attrs

from acrn_dm.base.errors import ConfigError

USERSPACE = "vbs-u"


@attrs.frozen(kw_only=True)
class Placement:
    """Who moves a device's data. Known when the device is built; nothing is open then."""

    backend: str = USERSPACE  # name of the ``BackendType``
    path: Path | None = None  # where the backend is to be found: the socket of a ``vhost-user`` one
    optional: bool = False  # where the host can't do ``backend``, this process moves the data, and the log says so
    text: str = attrs.field()  # for the ``--dry-run`` table, in a word or two: what stands behind the device

    @text.default
    def _backend_itself(self) -> str:
        return self.backend


def at_socket(path: Path) -> Placement:
    """The placement of a device whose data another process moves, which listens at *path* (``vhost-user=SOCKET``)."""
    return Placement(backend="vhost-user", path=path, text=f"vhost-user {path}")


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


def chosen(own: Placement, name: str | None, device: str) -> Placement:
    """The placement *own* of *device*, with the backend *name* where the user gave one; then there is no other to fall
    back on. Raises ConfigError where the device's own options lead to another backend's socket.
    """
    if name is None:
        return own
    if own.path is not None and name != own.backend:
        raise ConfigError(
            f"{own.path} is the socket of the backend {own.backend}", option=f"{device} backend", value=name
        )
    text = own.text if name == own.backend else f"{own.text} ({name})"
    return Placement(backend=name, path=own.path, text=name if own.text == own.backend else text)
