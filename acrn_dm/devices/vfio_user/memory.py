"""The guest's memory as the server has it: files that it maps, and messages for what it has not mapped.

What is memory no more the server gives back before it can be anything else (``memory.generations``).
"""

import errno
import logging

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Command, Message, Refused
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRegion

log = logging.getLogger(__name__)

ALL = wire.MAP_READ | wire.MAP_WRITE


class SharedMemory:
    """The part of *memory* that the server knows; a ``MapUser``, for memory comes and goes. *page* is the server's."""

    def __init__(self, memory: GuestMemory, link: Link) -> None:
        self.page = 1
        self._memory = memory
        self._link = link
        self._shared: set[MemoryRegion] = set()

    @property
    def busy(self) -> bool:
        """The server has what is no memory any more."""
        return self._link.connected and bool(self._gone)

    def leave_map(self) -> None:
        """What goes is not known yet."""

    def enter_map(self) -> None:
        """The server gives back what has gone, and hears of what came."""
        if self._link.connected:
            try:
                self._take_back()
                self.share()
            except HostError:
                log.debug("the connection ended: %d regions of memory are nobody's", len(self._shared))
        self._memory.generations.sweep()

    def share(self) -> None:
        """Tell the server of all regions that it does not know. Raises HostError."""
        for region in self._memory.regions:
            if region not in self._shared:
                if region.gpa % self.page or region.size % self.page:
                    raise PeerError(f"its pages of {self.page:#x} bytes are larger than the guest's memory allows")
                place = wire.DMA_MAP.pack(wire.DMA_MAP.size, ALL, 0, region.gpa, region.size)
                self._link.ask(Command.DMA_MAP, place, (region.fd,))
                self._shared.add(region)

    @property
    def _gone(self) -> list[MemoryRegion]:
        return [region for region in self._shared if region not in self._memory.regions]

    def _take_back(self) -> None:
        """Have the server unmap what is no memory any more. Raises HostError; its connection is over then."""
        for region in self._gone:
            try:
                self._link.ask(Command.DMA_UNMAP, wire.DMA_UNMAP.pack(wire.DMA_UNMAP.size, 0, region.gpa, region.size))
            except Refused as e:
                raise self._link.broken(f"it keeps memory that the guest has no more: {e}") from e
            self._shared.remove(region)

    def forget(self) -> None:
        """The server is another one."""
        self._shared.clear()

    def serve(self, message: Message) -> bytes:
        """The answer's payload for what the server wants moved. Any thread. Raises Refused."""
        if message.command not in (Command.DMA_READ, Command.DMA_WRITE):
            raise Refused(f"{wire.name(message.command)} is not served", errno.ENOTSUP)
        data = message.payload[wire.DMA.size :]
        if len(message.payload) < wire.DMA.size:
            raise Refused(f"{wire.name(message.command)} of {len(message.payload)} bytes")
        address, count = wire.DMA.unpack_from(message.payload)
        expected = count if message.command == Command.DMA_WRITE else 0
        if not 0 < count <= wire.MAX_TRANSFER or len(data) != expected:
            raise Refused(f"{wire.name(message.command)} of {count:#x} bytes with {len(data)}")
        place = message.payload[: wire.DMA.size]
        try:
            if message.command == Command.DMA_READ:
                return place + self._memory.read(address, count)
            self._memory.write(address, data)
        except GuestError as e:
            raise Refused(str(e), errno.EFAULT) from e
        return place
