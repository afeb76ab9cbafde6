"""Frames that were read for a receive queue by whoever read them from the interface, which may be another pair's loop.

Where the driver steers by hashes, any pair's descriptor may bring a frame for any queue. A queue whose driver posts no
buffers holds up nobody else: its inbox fills, and then it loses what comes.
"""

from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm.base.records import define

LIMIT = 1024  # frames: what a tap keeps by default for one queue (txqueuelen 1000) and some


@define(eq=False)
class Inbox:
    """The inbox of one receive queue. *wake* has its loop call ``take``; it is called on any thread."""

    wake: Callable[[], None] = attrs.field(repr=False)
    _dropped: int = attrs.field(default=0, init=False)  # since the last turn
    _packets: deque[bytes] = attrs.field(factory=deque, init=False, repr=False)
    _told: bool = attrs.field(default=False, init=False)

    def put(self, packet: bytes) -> None:
        """A frame with its packet header has come. Any thread."""
        if len(self._packets) >= LIMIT:
            self._dropped += 1
            return
        self._packets.append(packet)
        if not self._told:
            self._told = True
            self.wake()

    def open(self) -> int:
        """The queue's turn begins: what comes from now on is told anew. Returns how many were lost since the last."""
        self._told = False
        dropped, self._dropped = self._dropped, 0
        return dropped

    def take(self) -> bytes | None:
        """The next one; None when there is none. On the queue's loop."""
        return self._packets.popleft() if self._packets else None

    def shut(self) -> None:
        """The turn is over, and there is room for more: whatever is left has another."""
        if self._packets and not self._told:
            self._told = True
            self.wake()

    def clear(self) -> None:
        """The driver wants nothing of it any more. With the loop held."""
        self._dropped += len(self._packets)
        self._packets.clear()
