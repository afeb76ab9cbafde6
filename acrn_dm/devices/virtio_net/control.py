"""The control queue (virtio 5.1.6.5): how many queue pairs are used, and which offloads frames for the guest may need.

A command is one chain: u8 class, u8 command and its data to be read, one byte of acknowledgement to be written.
"""

import enum
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.devices.virtio_net.request import CTRL_GUEST_OFFLOADS, GUEST_OFFLOADS, MQ
from acrn_dm.errors import GuestError
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


@attrs.define(eq=False)
class Control:
    """Serves the queue from DRIVER_OK to reset. *set_pairs* and *set_offloads* return whether it was done."""

    features: int
    max_pairs: int
    set_pairs: Callable[[int], bool] = attrs.field(repr=False)
    set_offloads: Callable[[int], bool] = attrs.field(repr=False)

    def serve(self, queue: Queue) -> None:
        """Carry out what is there. Raises GuestError."""
        for chain in queue.pop_batch(BATCH):
            request = parse(chain)
            done = request is not None and self._execute(request)
            chain.write(ACK_OK if done else ACK_ERROR)
            queue.push(chain)
        queue.flush()

    def _execute(self, request: Request) -> bool:
        if request.command is Command.VQ_PAIRS_SET:
            allowed = self.features & MQ and 1 <= request.value <= self.max_pairs  # 5.1.6.5.5.1
            return bool(allowed) and self.set_pairs(request.value)
        # 5.1.6.5.6.1: only what was negotiated can be switched on again.
        allowed = self.features & CTRL_GUEST_OFFLOADS and not request.value & ~(self.features & GUEST_OFFLOADS)
        return bool(allowed) and self.set_offloads(request.value)
