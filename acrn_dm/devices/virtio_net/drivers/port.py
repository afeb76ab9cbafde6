"""The port between a card and a packet driver in Python: a pair of sockets for each queue pair, a frame a message.

So a card has descriptors, whatever is behind it: it waits for frames and for room as for a tap's, and what it does
about either is the same. On the other side a thread for each pair takes the guest's frames to the driver.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.records import define
from acrn_dm.contract.drivers.packet import PacketDriver, PacketFile
from acrn_dm.contract.plugins.guard import told
from acrn_dm.devices.virtio_net.request import LONG_HEADER, MAX_FRAME

log = logging.getLogger(__name__)

CLOSE_S = 5.0  # a close waits for a frame that is being sent
MAX_MESSAGE = LONG_HEADER + MAX_FRAME


class DriverFile(PacketFile):
    """The card's end for one queue pair."""

    def __init__(self, end: socket.socket, driver: PacketDriver, blamed: str, attach: Callable[[bool], None]) -> None:
        end.setblocking(False)
        super().__init__(end.detach(), driver.offloads != 0)
        self._driver = driver
        self._blamed = blamed
        self._attach = attach

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        """See PacketFile."""
        if not self.vnet_header:
            return
        try:
            self._driver.configure(header_bytes=header_bytes, offloads=offloads)
        except (Exception, SystemExit) as e:
            raise HostError(f"{self._blamed}: configure: {told(e)}") from e

    def attach(self, attached: bool) -> None:
        """See PacketFile."""
        self._attach(attached)

    def read(self, buffer: memoryview) -> int | None:
        """See PacketFile: the end of the stream is the end of the driver."""
        size = super().read(buffer)
        if size == 0:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return size


@define(eq=False)
class Channel:
    """The driver's end for one queue pair."""

    index: int
    end: socket.socket
    attached: bool = True
    thread: threading.Thread | None = None


@define(eq=False)
class DriverPort:
    """The port of the card *name* with *driver*, which *blamed* names in the log; *tell* has whether there is a link.

    It is what a ``PacketPort`` says. ``files`` are the card's ends.
    """

    name: str
    driver: PacketDriver
    blamed: str
    tell: Callable[[bool], None]
    dropped: int = attrs.field(default=0, init=False)  # frames of the guest's that the driver failed with OSError
    _channels: list[Channel] = attrs.field(factory=list, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def make_files(self, pairs: int) -> list[PacketFile]:
        """The card's ends. Raises OSError."""
        files: list[PacketFile] = []
        for index in range(pairs):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel = Channel(index, far)
            self._channels.append(channel)
            files.append(DriverFile(near, self.driver, self.blamed, lambda on, c=channel: setattr(c, "attached", on)))  # type: ignore[misc]
        return files

    def begin(self) -> None:
        """Take the guest's frames to the driver from now on."""
        for channel in self._channels:
            thread = threading.Thread(
                target=self._serve, args=(channel,), name=f"{self.name}-{channel.index}", daemon=True
            )
            channel.thread = thread
            thread.start()

    def receive(self, frame: bytes | memoryview, *, pair: int = 0) -> bool:
        """See PacketPort."""
        channel = self._of(pair)
        if channel is None:
            return False
        try:
            channel.end.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as e:
            if e.errno == errno.EMSGSIZE:
                raise ValueError(f"a frame of {len(frame)} bytes is none") from e
            return False
        return True

    def wait(self, seconds: float, *, pair: int = 0) -> bool:
        """See PacketPort."""
        channel = self._of(pair)
        if channel is None:
            return False
        poller = select.poll()
        poller.register(channel.end, select.POLLOUT)
        return [events for _, events in poller.poll(1000 * seconds)] == [select.POLLOUT]

    def link(self, up: bool) -> None:
        """See PacketPort."""
        if not self._closed:
            self.tell(up)

    def close(self) -> bool:
        """End the threads; false where a frame is being sent that does not come back, with its thread left behind."""
        self._closed = True
        for channel in self._channels:
            with contextlib.suppress(OSError):
                channel.end.shutdown(socket.SHUT_RDWR)
        stuck = False
        for channel in self._channels:
            if channel.thread is not None:
                channel.thread.join(CLOSE_S)
                stuck = stuck or channel.thread.is_alive()
            channel.end.close()
        self._channels.clear()
        return not stuck

    def _of(self, pair: int) -> Channel | None:
        """The channel that frames for *pair* go by: of those in use."""
        used = [channel for channel in self._channels if channel.attached]
        return used[pair % len(used)] if used and not self._closed else None

    def _serve(self, channel: Channel) -> None:
        while frame := self._next(channel):
            try:
                self.driver.send(frame, channel.index)
            except OSError:
                self.dropped += 1
            except BaseException as e:  # on a thread of ours: whatever it is, it is the driver's
                self._fail(e)
                return

    def _next(self, channel: Channel) -> bytes:
        try:
            return channel.end.recv(MAX_MESSAGE)
        except OSError:
            return b""

    def _fail(self, error: BaseException) -> None:
        """The driver is done for: as a tap that was deleted."""
        closed, self._closed = self._closed, True
        if not closed:
            log.error("%s: %s; it gets no frame any more", self.blamed, told(error))
        for channel in self._channels:
            with contextlib.suppress(OSError):
                channel.end.shutdown(socket.SHUT_RDWR)
