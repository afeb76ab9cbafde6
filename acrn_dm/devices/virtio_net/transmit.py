"""Transmission: from the guest to the tap. While the tap takes no more, frames wait in the guest's ring."""

from collections import deque

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_net.backend import GONE, PacketFile
from acrn_dm.devices.virtio_net.request import MAX_FRAME, MIN_FRAME, header_bytes, transmit_header
from acrn_dm.virtio.queue import Queue

BATCH, BATCHES = 64, 2  # chains at once, batches per turn of the loop
IOV_MAX = 1024


@define(eq=False)
class Transmitter:
    """The transmit queue, from DRIVER_OK to reset."""

    queue: Queue
    tap: PacketFile
    features: int
    dropped: int = attrs.field(default=0, init=False)  # malformed frames, and those the host refused
    blocked: bool = attrs.field(default=False, init=False)  # go on when the tap is writable
    _backlog: deque[tuple[Chain, bytes]] = attrs.field(factory=deque, init=False, repr=False)
    _header: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._header = header_bytes(self.features)

    def pump(self) -> None:
        """Send what is there, up to the budget. Raises GuestError; OSError when the tap is gone."""
        self.blocked = False
        if self.queue.closed:  # broken by the driver: its chains are dead
            self._backlog.clear()
            return
        for _ in range(BATCHES):
            if not self._backlog and not self._take():
                return
            self._send_backlog()
            self.queue.flush()
            if self.blocked:
                return
        self.blocked = True  # more may be there: it gets another turn once the tap is writable, that is at once

    def discard(self) -> None:
        """The tap is gone: return what is there unsent. Raises GuestError."""
        self.blocked = False
        for _ in range(1 + self.queue.size // BATCH):
            self._take()
            while self._backlog:
                self.dropped += 1
                self.queue.push(self._backlog.popleft()[0], 0)
            self.queue.flush()

    def _take(self) -> bool:
        """Fetch chains and read their headers, each once; False when there is none."""
        self._backlog.extend((chain, chain.read(self._header)) for chain in self.queue.pop_batch(BATCH))
        return bool(self._backlog)

    def _send_backlog(self) -> None:
        while self._backlog:
            chain, header = self._backlog[0]
            if not self._send(chain, header):
                self.blocked = True
                return
            self._backlog.popleft()
            self.queue.push(chain, 0)  # used length 0: nothing was written into guest memory

    def _send(self, chain: Chain, header: bytes) -> bool:
        """Send one frame; False when the tap takes no more now. A bad frame is dropped, which counts as sent."""
        size = chain.readable_bytes - self._header
        clean = transmit_header(header, size, self.features) if MIN_FRAME <= size <= MAX_FRAME else None
        if clean is None:
            self.dropped += 1
            return True
        parts: list[bytes | memoryview] = list(chain.readable(self._header))
        if self.tap.vnet_header:
            parts.insert(0, clean)
        if len(parts) > IOV_MAX:
            parts = [b"".join(parts)]
        try:
            return self.tap.write(parts)
        except OSError as e:
            if e.errno in GONE:
                raise
            self.dropped += 1
            return True
