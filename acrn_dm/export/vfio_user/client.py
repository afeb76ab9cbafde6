"""One vfio-user client: its commands, in a table, and what they make of function, memory and interrupts."""

import errno
import logging
import socket
from collections.abc import Callable

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import device as numbers
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user import version
from acrn_dm.backends.wire.vfio_user.channel import Channel
from acrn_dm.backends.wire.vfio_user.message import Command, Message, Refused
from acrn_dm.base.errors import HostError
from acrn_dm.export.turns import take_turn
from acrn_dm.export.vfio_user import parsing, regions
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.export.vfio_user.requests import Requests

log = logging.getLogger(__name__)

Handler = Callable[["Client", Message], bytes]  # returns the answer's payload


class Client:
    """The client's connection and what it has set up. *gone* is called once, when the connection is over.

    It is the owner once it has said VERSION.
    """

    def __init__(self, exported: ExportedFunction, peer: socket.socket, gone: Callable[[], None]) -> None:
        self._exported = exported
        self._channel = Channel(peer)
        self._requests = Requests(self._channel)
        self._gone = gone
        self._open = True
        self.is_owner = False
        exported.main_loop.add(self._channel.fd, self._on_ready)
        exported.main_loop.add(exported.memory.shortened, self._on_shortened)

    def close(self) -> None:
        """End the connection and forget everything the client brought. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._requests.end()
        self._exported.main_loop.remove(self._channel.fd)
        self._exported.main_loop.remove(self._exported.memory.shortened)
        self._channel.shutdown()
        self._exported.client_gone()
        self._channel.close()
        self._gone()

    def _on_shortened(self) -> None:
        log.warning("the client has shortened memory that its device uses")
        self.close()

    def _on_ready(self) -> None:
        take_turn(self._channel.receive, self._take, self.close)

    def _take(self, message: Message) -> None:
        if message.is_reply:
            self._requests.answered(message)
        elif self.is_owner == (message.command == Command.VERSION):
            raise PeerError(f"{wire.name(message.command)} {'again' if self.is_owner else 'before VERSION'}")
        else:
            self._serve(message)

    def _serve(self, message: Message) -> None:
        try:
            handler = HANDLERS.get(message.command)
            if handler is None:
                raise Refused(f"{wire.name(message.command)} is not served", errno.ENOTSUP)
            answer, flags, error = handler(self, message), wire.REPLY, 0
        except Refused as e:
            log.info("%s", e)
            answer, flags, error = b"", wire.REPLY | wire.ERROR, e.code
        if message.wants_reply:
            self._channel.send(wire.encode(message.id, message.command, answer, flags=flags, error=error))

    # Commands

    def version(self, message: Message) -> bytes:
        """VERSION. Raises PeerError for another one than ours."""
        major, minor, capabilities = version.parse(message)
        if major:
            raise PeerError(f"version {major}.{minor}, expected 0.0")
        version.limit(capabilities, "max_msg_fds", wire.MAX_FDS)
        self._requests.most = version.limit(capabilities, "max_data_xfer_size", wire.MAX_TRANSFER)
        self._exported.memory.messages = self._requests
        self.is_owner = True
        return version.reply(len(message.payload), multi=capabilities.get("write_multiple") is True)

    def dma_map(self, message: Message) -> bytes:
        """DMA_MAP."""
        self._exported.memory.insert(parsing.parse_map(message), message.fds[0] if message.fds else None)
        return b""

    def dma_unmap(self, message: Message) -> bytes:
        """DMA_UNMAP."""
        self._exported.memory.remove(parsing.parse_unmap(message))
        return b""

    def device_info(self, message: Message) -> bytes:
        """DEVICE_GET_INFO."""
        parsing.parse_info(message, wire.DEVICE_INFO)
        flags = numbers.DEVICE_RESETS | numbers.DEVICE_IS_PCI
        return wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, flags, numbers.REGIONS, numbers.KINDS)

    def region_info(self, message: Message) -> bytes:
        """DEVICE_GET_REGION_INFO."""
        index = parsing.parse_info(message, wire.REGION_INFO)
        size = self._exported.regions.size(index)
        flags = numbers.READ | numbers.WRITE if size else 0
        return wire.REGION_INFO.pack(wire.REGION_INFO.size, flags, index, 0, size, index << regions.OFFSET_SHIFT)

    def region_fds(self, message: Message) -> bytes:
        """DEVICE_GET_REGION_IO_FDS: none, each access is a message. Where a queue's kick is has an eventfd while its
        driver uses it only, and clients ask once.
        """
        index = parsing.parse_info(message, wire.REGION_FDS)
        self._exported.regions.size(index)
        return wire.REGION_FDS.pack(wire.REGION_FDS.size, 0, index, 0)

    def irq_info(self, message: Message) -> bytes:
        """DEVICE_GET_IRQ_INFO."""
        index = parsing.parse_info(message, wire.IRQ_INFO)
        return wire.IRQ_INFO.pack(wire.IRQ_INFO.size, *_flags_index_count(self._exported, index))

    def set_irqs(self, message: Message) -> bytes:
        """DEVICE_SET_IRQS."""
        self._exported.irqs.apply(parsing.parse_irqs(message), message.fds)
        return b""

    def region_read(self, message: Message) -> bytes:
        """REGION_READ."""
        access = parsing.parse_read(message)
        return message.payload + self._exported.regions.read(access)

    def region_write(self, message: Message) -> bytes:
        """REGION_WRITE."""
        access, data = parsing.parse_write(message)
        self._exported.regions.write(access, data)
        return message.payload[: wire.REGION.size]

    def write_multi(self, message: Message) -> bytes:
        """REGION_WRITE_MULTI; those before one that can't be are done."""
        for access, data in parsing.parse_multi(message):
            self._exported.regions.write(access, data)
        return message.payload[: wire.MULTI_COUNT.size]

    def reset(self, message: Message) -> bytes:
        """DEVICE_RESET."""
        try:
            self._exported.reset()
        except HostError as e:
            raise Refused(str(e), errno.EBUSY) from e
        return b""


def _flags_index_count(exported: ExportedFunction, index: int) -> tuple[int, int, int]:
    flags, count = exported.irqs.info(index)
    return flags, index, count


HANDLERS: dict[int, Handler] = {
    Command.VERSION: Client.version,
    Command.DMA_MAP: Client.dma_map,
    Command.DMA_UNMAP: Client.dma_unmap,
    Command.DEVICE_GET_INFO: Client.device_info,
    Command.DEVICE_GET_REGION_INFO: Client.region_info,
    Command.DEVICE_GET_REGION_IO_FDS: Client.region_fds,
    Command.DEVICE_GET_IRQ_INFO: Client.irq_info,
    Command.DEVICE_SET_IRQS: Client.set_irqs,
    Command.REGION_READ: Client.region_read,
    Command.REGION_WRITE: Client.region_write,
    Command.REGION_WRITE_MULTI: Client.write_multi,
    Command.DEVICE_RESET: Client.reset,
}
