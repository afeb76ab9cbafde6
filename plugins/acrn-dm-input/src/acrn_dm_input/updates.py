"""Updates on their way to the driver: groups of events that belong together, each sent whole or not at all."""

import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from acrn_dm import GuestError, Queue
from acrn_dm_input.codes import EV_SYN, SYN_REPORT

WIRE = struct.Struct("<HHi")  # struct virtio_input_event: type, code, value (5.8.6)
KEPT = 1024  # events that wait for buffers


class Event(NamedTuple):
    """One event, as in linux/input.h without its time."""

    type: int
    code: int
    value: int


SYN = Event(EV_SYN, SYN_REPORT, 0)


@attrs.define(eq=False)
class Updates:
    """The updates that wait, oldest first. On the loop's thread."""

    sent: int = 0  # updates
    dropped: int = 0
    behind: bool = False  # some were dropped since the driver last had them all
    _waiting: deque[tuple[Event, ...]] = attrs.field(factory=deque)
    _events: int = 0

    @property
    def room(self) -> int:
        """How many events there is room for, each update's SYN_REPORT included."""
        return KEPT - self._events

    def add(self, events: Sequence[Event], buffers: int) -> bool:
        """Put one update, without its SYN_REPORT, behind the others. Returns whether it was taken: it is dropped where
        too much waits already, and where the driver, with a queue of *buffers*, could never have room for it.
        """
        update = (*events, SYN)
        if len(update) > min(self.room, buffers):
            self.dropped += 1
            self.behind = True
            return False
        self._waiting.append(update)
        self._events += len(update)
        return True

    def send(self, queue: Queue) -> None:
        """Give the driver each update that it has the buffers for. Raises GuestError for buffers that are too small."""
        while self._waiting:
            update = self._waiting[0]
            chains = queue.pop_batch(len(update))
            if len(chains) < len(update):
                queue.unpop(chains)
                return
            for event, chain in zip(update, chains, strict=True):
                if chain.writable_bytes < WIRE.size:
                    raise GuestError(f"a buffer of {chain.writable_bytes} bytes for an event")
                chain.write(WIRE.pack(*event))
                queue.push(chain)
            self.sent += 1
            self._events -= len(self._waiting.popleft())

    def clear(self) -> None:
        """Whoever they were for is gone."""
        self._waiting.clear()
        self._events = 0
        self.behind = False

    def caught_up(self) -> bool:
        """Whether the driver has got all that it was to get after some were dropped; true once."""
        yes = self.behind and not self._waiting
        self.behind = self.behind and not yes
        return yes
