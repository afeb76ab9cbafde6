"""The seams at which calls of the host can be caught: ``os``, sockets, a backend's methods.

Functions are replaced while a fault waits for them, and put back at the end. Only calls from product code count: those
of the test, of pytest and of ``acrn_dm.testing`` go through untouched.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.backend import Backend
from acrn_dm.virtio.device import VirtioDevice

Intercept = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

SOCKET = "socket."
OF_FCNTL = frozenset({"ioctl", "fcntl", "flock", "lockf"})
NEVER = (__name__.rpartition(".faults.")[0], "acrn_dm_pytest")  # the kit itself
MACHINE_PARTS = (VirtioDevice, PciFunction, Backend)


class Seams:
    """The functions that are replaced. *intercept* gets the call's name, the real function, and its arguments."""

    def __init__(self, intercept: Intercept, packages: list[str]) -> None:
        """Methods of devices, functions and backends are product code, and what is in *packages*."""
        self._intercept = intercept
        self._packages = packages
        self._undo: dict[str, Callable[[], None]] = {}

    def catch(self, name: str) -> None:
        """Replace a function of ``os`` or ``fcntl``, or a method of ``socket.socket``. Raises ValueError for others."""
        if name in self._undo:
            return
        owner: Any = fcntl if name in OF_FCNTL else socket.socket if name.startswith(SOCKET) else os
        attribute = name.removeprefix(SOCKET)
        real = getattr(owner, attribute, None)
        if not callable(real):
            raise ValueError(f"{name!r} is no function of os, no method of sockets, no call of vm. or backend.")
        own = attribute in vars(owner)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            if not self._is_product(sys._getframe(1)):
                return real(*args, **kwargs)
            return self._intercept(name, real, args, kwargs)

        setattr(owner, attribute, replaced)
        self._undo[name] = (lambda: setattr(owner, attribute, real)) if own else (lambda: delattr(owner, attribute))

    def catch_method(self, name: str, owner: object, attribute: str) -> None:
        """Replace a method of one object."""
        key, real = f"{name} {id(owner)}", getattr(owner, attribute)
        if key not in self._undo:
            setattr(owner, attribute, lambda *args, **kwargs: self._intercept(name, real, args, kwargs))
            self._undo[key] = lambda: delattr(owner, attribute)

    def release(self) -> None:
        """Put everything back. Idempotent."""
        while self._undo:
            self._undo.popitem()[1]()

    def _is_product(self, caller: FrameType) -> bool:
        module = str(caller.f_globals.get("__name__", ""))
        if module.startswith(NEVER):
            return False
        inside = any(module == package or module.startswith(f"{package}.") for package in self._packages)
        return inside or isinstance(caller.f_locals.get("self"), MACHINE_PARTS)


def path_of(args: tuple[Any, ...]) -> str | None:
    """The path that a call is about: its first argument, or the file behind it if that is a descriptor."""
    first = args[0] if args else None
    if isinstance(first, socket.socket):
        first = first.fileno()
    if isinstance(first, int):
        try:
            return os.readlink(f"/proc/self/fd/{first}")
        except OSError:
            return None
    return os.fsdecode(first) if isinstance(first, str | bytes | os.PathLike) else None


def shorten(args: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The arguments of a read or write, cut to *count* bytes: the length, or the buffer, or the buffers, behind the
    descriptor.
    """
    what = args[1]
    if isinstance(what, int):
        cut: Any = min(what, count)
    elif isinstance(what, bytes | bytearray | memoryview):
        cut = memoryview(what).cast("B")[:count]
    else:
        cut, left = [], count
        for buffer in what:
            view = memoryview(buffer).cast("B")[:left]
            left -= len(view)
            if len(view):
                cut.append(view)
    return (args[0], cut, *args[2:])
