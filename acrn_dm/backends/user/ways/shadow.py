"""The memory and the eventfds of the shadow rings (``ring.shadow``) that a back-end gets for the driver's."""

import fcntl
import mmap
import os
from collections.abc import Iterable

from acrn_dm.backends.wire.message import close_all
from acrn_dm.base.errors import HostError
from acrn_dm.base.records import frozen
from acrn_dm.memory.guest_memory import SEALS
from acrn_dm.pci.eventfds import make_eventfd
from acrn_dm.ring.factory import RING_FORMATS
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.ring import RingFormat


@frozen(kw_only=True)
class Placing:
    """The place of a queue's ring from offset *at* of the area on, and its eventfds."""

    at: int
    kick_fd: int
    call_fd: int

    def layout(self, form: RingFormat, size: int) -> RingLayout:
        """Where the parts of a ring of that format and size are: the driver chooses both, and may choose anew."""
        return form.lay_out_shadow(self.at, size)


class ShadowArea:
    """The memory of all shadow rings of one connection, by queue. An older back-end that lives on has another one."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.queues: list[Placing] = []
        self._fds: list[int] = []
        at = 0
        try:
            for size in sizes:
                kick_fd, call_fd = self._eventfd(), self._eventfd()
                self.queues.append(Placing(at=at, kick_fd=kick_fd, call_fd=call_fd))
                at = max(form.lay_out_shadow(at, size).end for form in RING_FORMATS)
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
