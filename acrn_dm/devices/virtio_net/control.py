"""The control queue (virtio 5.1.6.5): how many queue pairs are used, and which offloads frames for the guest may need.

A command is one chain: u8 class, u8 command and its data to be read, one byte of acknowledgement to be written.
Another process may have to hear of a command before it is acknowledged, so one may take its time; the next one waits.
"""

import enum
from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.devices.virtio_net.request import CTRL_GUEST_OFFLOADS, GUEST_OFFLOADS, MQ
from acrn_dm.virtio.queue import Queue

ACK_OK, ACK_ERROR = b"\0", b"\1"
HEADER = 2
BATCH = 16


class Command(enum.Enum):
    """Class and command number, and the bytes of data that belong to it."""

    VQ_PAIRS_SET = (4, 0, 2)  # 5.1.6.5.5: le16
    GUEST_OFFLOADS_SET = (5, 0, 8)  # 5.1.6.5.6: le64 of feature bits


NUMBERS = {(c.value[0], c.value[1]): c for c in Command}


@attrs.frozen(kw_only=True)
class Request:
    """A command that was understood; *value* is its data as a little-endian number."""

    command: Command
    value: int


def parse(chain: Chain) -> Request | None:
    """Read a command, each byte once; None for one that nobody knows or of the wrong length. Raises GuestError."""
    if not chain.writable_bytes or chain.readable_bytes < HEADER:
        raise GuestError("a control command without room for its acknowledgement, or without a command")
    group, number = chain.read(HEADER)
    command = NUMBERS.get((group, number))
    if command is None or chain.readable_bytes != HEADER + command.value[2]:
        return None
    return Request(command=command, value=int.from_bytes(chain.read(), "little"))


Done = Callable[[bool], None]  # tells whether a command was carried out; on the queue's loop, at most once


@attrs.define(eq=False)
class Control:
    """The server of *queue*, from DRIVER_OK until ``close``. *set_pairs* may call what it is given later, on the
    queue's loop; *set_offloads* returns whether it was done.
    """

    queue: Queue
    features: int
    max_pairs: int
    set_pairs: Callable[[int, Done], None] = attrs.field(repr=False)
    set_offloads: Callable[[int], bool] = attrs.field(repr=False)
    _chains: "deque[Chain]" = attrs.field(factory=deque, init=False, repr=False)  # the first one is being carried out
    _busy: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def serve(self) -> None:
        """Carry out what is there. Raises GuestError."""
        if not self._closed:
            self._chains += self.queue.pop_batch(BATCH)
            self._go_on()

    def close(self) -> None:
        """Let go of the queue; what has not been acknowledged yet never will be."""
        with self.queue.loop.held():
            self._closed = True
            self._chains.clear()

    def _go_on(self) -> None:
        while self._chains and not self._busy:
            self._busy = True
            self._execute(parse(self._chains[0]))
        self.queue.flush()

    def _execute(self, request: Request | None) -> None:
        """5.1.6.5.5.1, 5.1.6.5.6.1: as many pairs as there are; of the offloads only what was negotiated."""
        if request is None:
            self._acknowledge(False)
        elif request.command is Command.VQ_PAIRS_SET:
            if self.features & MQ and 1 <= request.value <= self.max_pairs:
                self.set_pairs(request.value, self._done)
            else:
                self._acknowledge(False)
        else:
            allowed = self.features & CTRL_GUEST_OFFLOADS and not request.value & ~(self.features & GUEST_OFFLOADS)
            self._acknowledge(bool(allowed) and self.set_offloads(request.value))

    def _done(self, carried_out: bool) -> None:
        if not self._closed:
            self._acknowledge(carried_out)
            self._go_on()

    def _acknowledge(self, carried_out: bool) -> None:
        chain = self._chains.popleft()
        chain.write(ACK_OK if carried_out else ACK_ERROR)
        self.queue.push(chain)
        self._busy = False
