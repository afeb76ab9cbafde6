"""The memory in which a back-end notes what is in flight, so that its successor can finish it (INFLIGHT_SHMFD).

The back-end makes it and alone writes it; here only its descriptor is kept and handed to the next back-end. It is never
mapped: a peer that truncates the file harms only itself.
"""

import os

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.inflight import MAX_SIZE
from acrn_dm.backends.wire.message import Message, PeerError
from acrn_dm.base.records import define


@define(eq=False)
class Inflight:
    """One such memory; owns *fd*."""

    fd: int
    size: int
    offset: int

    @classmethod
    def from_answer(cls, answer: Message) -> "Inflight":
        """Read the answer to GET_INFLIGHT_FD. Raises PeerError."""
        size, offset, _, _ = payload.parse_inflight(answer.payload)
        if not 0 < size <= MAX_SIZE or offset > MAX_SIZE:
            raise PeerError(f"an inflight region of {size} bytes at {offset}")
        return cls(answer.take_fd(), size, offset)

    def describe(self, queues: int, entries: int) -> bytes:
        """Payload of SET_INFLIGHT_FD."""
        return payload.inflight(self.size, self.offset, queues, entries)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@define(eq=False)
class InflightSlot:
    """The place where a device keeps its region while it has one: for all its *queues*, each of up to *entries*."""

    queues: int
    entries: int
    region: Inflight | None = None

    def request(self) -> bytes:
        """Payload of GET_INFLIGHT_FD."""
        return payload.inflight(0, 0, self.queues, self.entries)

    def forget(self) -> None:
        """What was in flight concerns nobody any more."""
        region, self.region = self.region, None
        if region is not None:
            region.close()
