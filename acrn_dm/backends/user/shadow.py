"""The memory and the eventfds of the shadow rings (``ring.shadow``) that a back-end gets for the driver's."""

import fcntl
import mmap
import os
from collections.abc import Iterable

import attrs

from acrn_dm.backends.wire.message import close_all
from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import SEALS
from acrn_dm.pci.eventfds import make_eventfd
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.shadow import shadow_layout


@attrs.frozen(kw_only=True)
class Placing:
    """The place of a queue's two rings, as offsets in the area, and its eventfds."""

    layout: RingLayout
    kick_fd: int
    call_fd: int


class ShadowArea:
    """The memory of all shadow rings of one connection, by queue. An older back-end that lives on has another one."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.queues: list[Placing] = []
        self._fds: list[int] = []
        at = 0
        try:
            for size in sizes:
                layout = shadow_layout(at, size)
                kick_fd, call_fd = self._eventfd(), self._eventfd()
                self.queues.append(Placing(layout=layout, kick_fd=kick_fd, call_fd=call_fd))
                at = layout.end
            self.size = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
            self.fd = self._own(os.memfd_create("shadow-rings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(self.fd, self.size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            self.memory = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED)
        except OSError as e:
            close_all(self._fds)
            raise HostError.from_os("allocating shadow rings", e) from e
        except HostError:
            close_all(self._fds)
            raise

    def close(self) -> None:
        """Give everything back; no loop may know the eventfds any more."""
        self.memory.close()
        close_all(self._fds)

    def _eventfd(self) -> int:
        return self._own(make_eventfd())

    def _own(self, fd: int) -> int:
        self._fds.append(fd)
        return fd
