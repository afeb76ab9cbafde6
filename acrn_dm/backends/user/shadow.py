"""Rings of our own, shared with a back-end instead of the driver's: available and used ring, no descriptors.

The descriptor table stays the driver's, so heads mean the same on both sides. Interrupts and kicks are never
suppressed: there are eventfds in between, whose system calls also order the accesses (x86 keeps each kind in order).
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable

import attrs

from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import SEALS
from acrn_dm.pci.eventfds import make_eventfd

USED_ELEMENT = struct.Struct("<II")  # head, bytes written: 2.7.8
U16 = struct.Struct("<H")
IDX, RING = 2, 4  # offsets in both rings
ALIGNMENT = 64


@attrs.frozen(kw_only=True)
class Placing:
    """Where a queue's two rings are in the area, and its eventfds."""

    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)
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
                used = _align(at + RING + 2 * size + 2)
                kick_fd, call_fd = self._eventfd(), self._eventfd()
                self.queues.append(Placing(avail=at, used=used, kick_fd=kick_fd, call_fd=call_fd))
                at = _align(used + RING + USED_ELEMENT.size * size + 2)
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


class ShadowRing:
    """The driver's side of one ring. Not thread-safe."""

    def __init__(self, area: ShadowArea, index: int, size: int) -> None:
        self._memory = area.memory
        self._placing = area.queues[index]
        self._size = size
        self._next_avail = 0
        self._last_used = 0
        for ring, length in ((self._placing.avail, 2 * size), (self._placing.used, USED_ELEMENT.size * size)):
            self._memory[ring : ring + RING + length + 2] = bytes(RING + length + 2)

    def add(self, heads: Iterable[int]) -> None:
        """Make *heads* available; there are never more than the ring has entries."""
        ring = self._placing.avail + RING
        for head in heads:
            U16.pack_into(self._memory, ring + 2 * (self._next_avail % self._size), head)
            self._next_avail = (self._next_avail + 1) & 0xFFFF
        U16.pack_into(self._memory, self._placing.avail + IDX, self._next_avail)

    def used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of what came back since the last call. Raises PeerError for more than there can be."""
        (index,) = U16.unpack_from(self._memory, self._placing.used + IDX)
        count = (index - self._last_used) & 0xFFFF
        if count > self._size:
            raise PeerError(f"its used index jumped by {count} in a ring of {self._size}")
        ring = self._placing.used + RING
        elements = []
        for i in range(self._last_used, self._last_used + count):
            elements.append(USED_ELEMENT.unpack_from(self._memory, ring + USED_ELEMENT.size * (i % self._size)))
        self._last_used = index
        return elements


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
