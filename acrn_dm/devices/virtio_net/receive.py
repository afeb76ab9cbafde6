"""Reception: from the tap to the guest.

Frames wait in the kernel while the guest has no buffers: then the tap is not read, and not watched either, until the
driver kicks. One frame at most waits here, because its length is known only once it is read; what the driver says
meanwhile holds for it, too.
"""

import struct

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.receive_filter import TAGGED, ReceiveFilter
from acrn_dm.devices.virtio_net.request import (
    GSO_ECN,
    GSO_NONE,
    GUEST_OFFLOADS,
    HASH_HEADER,
    LONG_HEADER,
    MAX_FRAME,
    MIN_FRAME,
    MRG_RXBUF,
    REPORT,
    header_bytes,
    receive_flags,
)
from acrn_dm.devices.virtio_net.steering._hash import FrameHash
from acrn_dm.devices.virtio_net.steering.inbox import Inbox
from acrn_dm.virtio.queue import Queue

BUDGET = 64  # frames per turn of the loop
TAG = 4  # bytes of a VLAN tag, which no MTU counts
U16 = struct.Struct("<H")


@define(eq=False)
class Receiver:
    """The receive queue, from DRIVER_OK to reset."""

    queue: Queue
    tap: PacketFile
    features: int
    wanted: ReceiveFilter | None = attrs.field(default=None, kw_only=True, repr=False)  # None: every frame
    mtu: int = attrs.field(default=0, kw_only=True)
    hashes: FrameHash | None = attrs.field(default=None, kw_only=True, repr=False)  # None: frames have none
    inbox: Inbox | None = attrs.field(default=None, init=False, repr=False)  # frames come by it, not from the tap
    dropped: int = attrs.field(default=0, init=False)  # frames the guest can't take, however many buffers it posts
    reads: bool = attrs.field(default=False, init=False)  # whether frames can go on: else the ring must be kicked first
    _buffer: memoryview = attrs.field(init=False, repr=False)
    _header: int = attrs.field(init=False)
    _waiting: int = attrs.field(default=0, init=False)  # bytes of the frame in the buffer, header included

    def __attrs_post_init__(self) -> None:
        self._buffer = memoryview(bytearray(HASH_HEADER + MAX_FRAME + 1))  # one byte more shows what is too long
        self._header = header_bytes(self.features)

    def pump(self) -> None:
        """Move frames while there are frames and buffers, within a budget. Raises GuestError; OSError without a tap."""
        self.reads = True
        if self.inbox is not None:
            self.dropped += self.inbox.open()
        for _ in range(BUDGET):
            if not self._waiting and not self._fetch():
                break
            if self._waiting and not self._deliver():
                self.reads = False
                break
        self.queue.flush()
        if self.inbox is not None and self.reads:
            self.inbox.shut()

    def _fetch(self) -> bool:
        """Read the next frame; False when none is there. One that is dropped leaves the buffer empty."""
        space = self._buffer if self.tap.vnet_header else self._buffer[self._header :]
        size = self.tap.read(space) if self.inbox is None else self._open_next(self.inbox, space)
        if size is None:
            return False
        frame = size - self._header if self.tap.vnet_header else size
        if not MIN_FRAME <= frame <= MAX_FRAME:
            self.dropped += 1
            return True
        self._waiting = self._header + frame
        if self.tap.vnet_header:
            self._judge()
        self._select()
        return True

    def _open_next(self, inbox: Inbox, space: memoryview) -> int | None:
        packet = inbox.take()
        if packet is None:
            return None
        space[: len(packet)] = packet
        return len(packet)

    def want(self, wanted: ReceiveFilter | None) -> None:
        """From now on the driver takes the frames that *wanted* lets pass."""
        self.wanted = wanted
        self._select()

    def _select(self) -> None:
        """Drop the waiting frame if the driver does not want it, or was told that none is so long (5.1.4.1)."""
        if self._waiting and (self.wanted is not None or self.mtu):
            frame = self._buffer[self._header : self._waiting]
            unwanted = self.wanted is not None and not self.wanted.passes(frame)
            if unwanted or (self.mtu and self._too_long(frame)):
                self._drop()

    def _too_long(self, frame: memoryview) -> bool:
        whole = self._buffer[1] & ~GSO_ECN == GSO_NONE
        return whole and len(frame) > MIN_FRAME + self.mtu + (TAG if bytes(frame[12:14]) == TAGGED else 0)

    def limit(self, offloads: int) -> None:
        """From now on the driver takes frames that need *offloads*, GUEST_* bits, and no others (5.1.6.5.6)."""
        self.features = self.features & ~GUEST_OFFLOADS | offloads
        if self._waiting and self.tap.vnet_header:
            self._judge()

    def forget(self) -> None:
        """The driver does not want what has been read."""
        if self.inbox is not None:
            self.inbox.clear()
        self._drop()

    def _drop(self) -> None:
        self.dropped += self._waiting > 0
        self._waiting = 0

    def _judge(self) -> None:
        """Drop the waiting frame if the driver can't take it."""
        flags = receive_flags(self._buffer, self.features)
        if flags is None:
            self._drop()
        else:
            self._buffer[0] = flags

    def _deliver(self) -> bool:
        """Put the waiting frame into the guest's buffers; False when there are too few."""
        chains, room = self._collect()
        if room < self._waiting:
            self.queue.unpop(chains)
            # No driver can post more than the ring holds, and without MRG_RXBUF a frame has one buffer (5.1.6.4.1).
            hopeless = len(chains) == self.queue.size or (chains and not self.features & MRG_RXBUF)
            if hopeless:
                self.dropped += 1
                self._waiting = 0
            return bool(hopeless)
        if self._header >= LONG_HEADER:
            U16.pack_into(self._buffer, 10, len(chains))
        if self._header == HASH_HEADER:
            frame = self._buffer[self._header : self._waiting]
            REPORT.pack_into(self._buffer, LONG_HEADER, *(self.hashes.hash(frame) if self.hashes else (0, 0)), 0)
        done = 0
        for chain in chains:  # all but the last are filled to the end (5.1.6.4.1)
            done += chain.write(self._buffer[done : self._waiting])
            self.queue.push(chain)
        if len(chains) > 1:
            self.queue.coalescer.took_several(len(chains))
        self._waiting = 0
        return True

    def _collect(self) -> tuple[list[Chain], int]:
        """Take as many chains as the waiting frame needs, fewer if there are not that many; and the room in them."""
        chains: list[Chain] = []
        room = 0
        while room < self._waiting and (self.features & MRG_RXBUF or not chains):
            more = self.queue.pop_batch(1)
            if not more:
                break
            if not more[0].writable_bytes or (not chains and more[0].writable_bytes < self._header):
                raise GuestError(f"receive buffer of {more[0].writable_bytes} bytes, too small for the packet header")
            chains += more
            room += more[0].writable_bytes
        return chains, room
