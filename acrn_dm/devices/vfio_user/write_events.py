"""Eventfds that a server has for writes to its registers: the hypervisor signals them, and no message is sent.

They are the server's offer (DEVICE_GET_REGION_IO_FDS), and are bound where the guest has put the BAR, from its first
access on: a reboot resets devices before the virtual machine, which forgets what was bound. What the hypervisor takes
no binding for stays a message.
"""

import logging
import os
import struct
from collections.abc import Iterator, Mapping

from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Command, Refused
from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import EventFdRegistry, Space
from acrn_dm.base.records import frozen
from acrn_dm.devices.vfio_user.capabilities import TablePlace
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.pci.bar import Bar
from acrn_dm.pci.eventfds import KickAddress, KickEvent

log = logging.getLogger(__name__)

ROOM = 4096  # for an answer: 85 places of a BAR
PLACE = struct.Struct("<QQIIII")  # offset, size, descriptor, type, flags, and four bytes
IOEVENTFD, DATAMATCH = 0, 1  # a type, a flag (linux/kvm.h)
MATCH_AT, LATER_MATCH_AT = 32, 40  # by the specification; where libvfio-user has another field before it
LENGTHS = (0, 1, 2, 4, 8)


@frozen(kw_only=True)
class Place:
    """A write of *size* bytes (0: of any size) at *offset* of a BAR, of *match* if that is no None."""

    offset: int
    size: int
    match: int | None
    descriptor: int  # number of the descriptor that came


class WriteEvents:
    """The eventfds of one function with *bars*. Control threads, under the function's lock."""

    def __init__(self, link: Link, registry: EventFdRegistry, bars: Mapping[int, Bar]) -> None:
        self._link = link
        self._registry = registry
        self._bars = bars
        self._events: list[tuple[int, Place, KickEvent]] = []
        self._bound = False

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._events)

    @property
    def stretches(self) -> list[TablePlace]:
        """Where they are."""
        return [TablePlace(bar=index, offset=place.offset, size=max(place.size, 1)) for index, place, _ in self._events]

    def ask(self, sizes: Mapping[int, int]) -> None:
        """Have those that the server offers for its BARs, of *sizes*. Raises HostError."""
        self.close()
        for index, size in sizes.items():
            brought: list[int] = []
            try:
                for place in _places(self._link, index, size, brought):
                    event = KickEvent(self._registry, _refused, _copy(brought[place.descriptor]))
                    self._events.append((index, place, event))
            finally:
                close_all(brought)

    def bind(self) -> None:
        """The guest accesses the function."""
        if not self._bound:
            self._bound = True
            self.follow()

    def unbind(self) -> None:
        """The function is reset, and with it the virtual machine, maybe."""
        self._bound = False
        self.follow()

    def follow(self) -> None:
        """BARs are where the guest has put them, or nowhere."""
        for index, place, event in self._events:
            bar = self._bars[index]
            space = Space.PIO if bar.is_io else Space.MMIO
            there = KickAddress(space=space, addr=bar.base + place.offset, len=place.size, datamatch=place.match)
            event.bind(there if self._bound and bar.mapped else None)

    def close(self) -> None:
        """Nobody is told of writes any more. Idempotent."""
        self._bound = False
        while self._events:
            self._events.pop()[2].close()


def _places(link: Link, index: int, size: int, brought: list[int]) -> Iterator[Place]:
    """What the server offers for BAR *index*, whose descriptors are *brought*. Raises HostError."""
    question = wire.REGION_FDS.pack(wire.REGION_FDS.size + ROOM, 0, index, 0)
    try:
        answer = link.ask(Command.DEVICE_GET_REGION_IO_FDS, question, brought=brought)
    except Refused:
        return  # it knows no eventfds
    if not wire.REGION_FDS.size <= len(answer) <= wire.REGION_FDS.size + ROOM:
        raise PeerError(f"DEVICE_GET_REGION_IO_FDS was answered with {len(answer)} bytes")
    needed, _, got, count = wire.REGION_FDS.unpack_from(answer)
    if got != index:
        raise PeerError(f"DEVICE_GET_REGION_IO_FDS of region {index} told of region {got}")
    if not count or needed > len(answer):  # more of them than there is room for: as if there were none
        return
    each, rest = divmod(len(answer) - wire.REGION_FDS.size, count)
    if rest or each < MATCH_AT + 8:
        raise PeerError(f"DEVICE_GET_REGION_IO_FDS: {count} places in {len(answer)} bytes")
    for at in range(wire.REGION_FDS.size, len(answer), each):
        place = _place(answer[at : at + each], index, size, len(brought))
        if place is not None:
            yield place


def _place(said: bytes, index: int, size: int, descriptors: int) -> Place | None:
    """One of them; None for what is no eventfd."""
    offset, length, descriptor, type_, flags, _ = PLACE.unpack_from(said)
    if type_ != IOEVENTFD:
        return None
    if length not in LENGTHS or offset + max(length, 1) > size:
        raise PeerError(f"an eventfd is for {length:#x} bytes at {offset:#x} of its BAR {index}, which has {size:#x}")
    at = LATER_MATCH_AT if len(said) >= LATER_MATCH_AT + 8 else MATCH_AT
    match = int.from_bytes(said[at : at + (length or 8)], "little") if flags & DATAMATCH else None
    if match is not None and not length:
        raise PeerError(f"an eventfd at {offset:#x} of its BAR {index} is for a value of no size")
    if descriptor >= descriptors:
        raise PeerError(f"an eventfd of its BAR {index} is descriptor {descriptor} of {descriptors}")
    return Place(offset=offset, size=length, match=match, descriptor=descriptor)


def _copy(descriptor: int) -> int:
    """Another descriptor of the same eventfd: places may share one. Raises HostError."""
    try:
        return os.dup(descriptor)
    except OSError as e:
        raise HostError.from_os("having an eventfd", e, "raise the limit of open files (ulimit -n)") from e


def _refused(error: HostError) -> None:
    log.info("writes stay messages: %s", error)
