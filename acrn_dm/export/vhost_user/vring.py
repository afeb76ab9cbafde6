"""One virtqueue as a vhost-user client sets it up, and its eventfds as the userspace backend uses them."""

import os
import threading
from collections.abc import Callable
from typing import ClassVar

import attrs

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import signal
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import RingFormat

EVENTFD = "anon_inode:[eventfd]"


@define(eq=False)
class ClientKick:
    """``backend.Kick`` on the client's eventfd."""

    fd: int

    def signal(self) -> None:
        """Do what the client's driver does."""
        signal(self.fd)


@define(eq=False)
class ClientCall:
    """``backend.Call`` on the client's eventfd, which may change while the ring runs; -1: its driver polls, or the
    client has not got round to it.

    The eventfd that a ring starts with may be of the time before, and looked at by nobody any more: QEMU gives the one
    that counts behind SET_VRING_KICK. So what was given to the former is given to the first that comes, too.
    """

    private: ClassVar[bool] = False
    fd: int = -1
    _owed: bool = attrs.field(default=False, init=False)  # an interrupt that nobody may have got
    _unsure: bool = attrs.field(default=False, init=False)  # whether anybody looks at the eventfd
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def begin(self) -> None:
        """The client has started the ring."""
        with self._lock:
            self._unsure = True

    def signal(self) -> None:
        """Interrupt the client's driver. Any thread."""
        with self._lock:
            self._owed = self._unsure or self.fd < 0
            if self.fd >= 0:
                signal(self.fd)

    def forward(self, loop: IoLoop, failed: Callable[[HostError], None] | None = None) -> None:
        """Nothing has to be passed on: nobody else writes it."""

    def replace(self, fd: int) -> None:
        """Use *fd* from now on, and close the old one."""
        with self._lock:
            old, self.fd = self.fd, fd
            if fd >= 0:
                owed, self._owed, self._unsure = self._owed, False, False
                if owed:
                    signal(fd)
        if old >= 0:
            os.close(old)

    def forget(self) -> None:
        """The client is gone, or as if it were: nothing is owed."""
        self.replace(-1)
        with self._lock:
            self._owed = self._unsure = False


@define(eq=False)
class Vring:
    """The ring and what the client said of it. Addresses are the client's user addresses; it owns its descriptors."""

    index: int
    max_size: int
    size: int = attrs.field(init=False)
    desc: int | None = attrs.field(default=None, init=False)
    avail: int = attrs.field(default=0, init=False)
    used: int = attrs.field(default=0, init=False)
    log: int | None = attrs.field(default=None, init=False)  # where writes of the used ring are logged, if they are
    position: RingPosition | None = attrs.field(default=None, init=False)  # None: the client has not said
    stopped_at: RingPosition | None = attrs.field(default=None, init=False)  # for the driver that there is now
    enabled: bool = attrs.field(default=False, init=False)
    kick_fd: int = attrs.field(default=-1, init=False)
    call: ClientCall = attrs.field(factory=ClientCall, init=False)
    err_fd: int = attrs.field(default=-1, init=False)
    _served: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.size = self.max_size

    @property
    def started(self) -> bool:
        """SET_VRING_KICK starts a ring, GET_VRING_BASE stops it."""
        return self.kick_fd >= 0 and self.desc is not None

    def set_size(self, size: int, form: RingFormat) -> None:
        """SET_VRING_NUM. Raises PeerError for one that rings of the format *form* can't have, or past the maximum."""
        if not form.takes_size(size) or size > self.max_size:
            raise PeerError(f"ring {self.index} of {size} entries; {form.sizes} up to {self.max_size} is possible")
        self.size = size

    def set_kick(self, fd: int) -> None:
        """Take *fd*, -1 for none."""
        old, self.kick_fd = self.kick_fd, fd
        if fd >= 0:
            self.call.begin()
        if old >= 0:
            os.close(old)

    def set_err(self, fd: int) -> None:
        """Take *fd*, -1 for none."""
        old, self.err_fd = self.err_fd, fd
        if old >= 0:
            os.close(old)

    def serves(self) -> None:
        """It is served from now on. The first time its driver is interrupted whether it asks for that or not: a process
        that served it before may have died between an answer and the interrupt, which a driver with event index never
        gets then, for the ring is past the event.
        """
        if not self._served:
            self._served = True
            self.call.signal()

    def error(self) -> None:
        """Tell the client that the ring is broken."""
        if self.err_fd >= 0:
            signal(self.err_fd)

    def reset(self) -> None:
        """As if the client had never set it up; its eventfds are closed. Idempotent."""
        self.size, self.desc, self.avail, self.used = self.max_size, None, 0, 0
        self.log, self.position, self.stopped_at = None, None, None
        self.enabled = self._served = False
        self.set_kick(-1)
        self.set_err(-1)
        self.call.forget()


def check_eventfd(fd: int) -> int:
    """Return *fd*. Raises PeerError, with *fd* closed, if it is something else than an eventfd."""
    if os.readlink(f"/proc/self/fd/{fd}") != EVENTFD:
        os.close(fd)
        raise PeerError("the descriptor that came along is no eventfd")
    return fd
