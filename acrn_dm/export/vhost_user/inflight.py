"""Notes of what is in flight, for the next process of a device whose requests may overtake one another
(INFLIGHT_SHMFD): the region, which the client keeps.

Made here when the client asks for it, and mapped when it hands it over: for this process or from an earlier one. Each
ring that runs then writes its part (``ring.native.notes``).
"""

import fcntl
import os

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.inflight import ALIGNMENT, MAX_SIZE, stride
from acrn_dm.backends.wire.message import Message, PeerError
from acrn_dm.export.vhost_user.foreign import Foreign, map_file
from acrn_dm.ring.layout import MAX_QUEUE_SIZE
from acrn_dm.ring.ring import RingFormat

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make_region(message: Message, form: RingFormat, queues: int) -> tuple[bytes, int]:
    """GET_INFLIGHT_FD for a device of *queues*: the answer, and its descriptor, which is the caller's. Nothing is kept.

    Raises PeerError.
    """
    _, _, count, entries = payload.parse_inflight(message.payload)
    _check(count, entries, queues)
    size = count * stride(form.notes().length(entries))
    try:
        fd = os.memfd_create("inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as e:
        raise PeerError("an inflight region can't be made", err=e.errno) from e
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as e:
        os.close(fd)
        raise PeerError("an inflight region can't be made", err=e.errno) from e
    return payload.inflight(size, 0, count, entries), fd


class InflightRegion:
    """The region that the client handed over, or none. The eventfd *shortened* tells when it has shortened its file."""

    def __init__(self, shortened: int) -> None:
        self._shortened = shortened
        self._foreign: Foreign | None = None
        self._parts: dict[int, memoryview] = {}  # those that rings were given
        self._at = self._end = self._queues = self._entries = 0

    def replace(self, message: Message, queues: int) -> None:
        """SET_INFLIGHT_FD, for a device of *queues*. Only while nobody notes. Raises PeerError; then there is none."""
        self.clear()
        size, offset, count, entries = payload.parse_inflight(message.payload)
        _check(count, entries, queues)
        if not 0 < size <= MAX_SIZE or offset > MAX_SIZE or offset % ALIGNMENT:
            raise PeerError(f"an inflight region of {size} bytes at {offset}")
        foreign = map_file(message.take_fd(), offset, size, self._shortened, what="an inflight region")
        self._foreign, self._at, self._end = foreign, foreign.first, foreign.first + size
        self._queues, self._entries = count, entries

    def part(self, index: int, form: RingFormat) -> memoryview | None:
        """The part of ring *index*, of format *form*; None where it has none. Raises PeerError past the end."""
        if self._foreign is None or index >= self._queues:
            return None
        length = form.notes().length(self._entries)
        at = self._at + index * stride(length)
        if at + length > self._end:
            raise PeerError(f"the inflight region has no room for ring {index}")
        if index in self._parts and len(self._parts[index]) != length:  # of a ring of another format
            self._parts.pop(index).release()
        if index not in self._parts:
            with memoryview(self._foreign.mapping) as whole:
                self._parts[index] = whole[at : at + length]
        return self._parts[index]

    def clear(self) -> None:
        """Forget it. Only while nobody notes. Idempotent."""
        parts, self._parts = self._parts, {}
        for part in parts.values():
            part.release()
        foreign, self._foreign = self._foreign, None
        if foreign is not None:
            foreign.close()


def _check(count: int, entries: int, queues: int) -> None:
    if not 0 < count <= queues or not 0 < entries <= MAX_QUEUE_SIZE:
        raise PeerError(f"an inflight region for {count} queues of {entries} entries")
