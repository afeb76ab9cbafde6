"""Notification coalescing (virtio 5.1.6.5.10): which queue's interrupts wait for how many packets, and how long.

What the driver says of all transmit or all receive queues is remembered for a queue that comes back; what it says of
one queue lasts as long as that is enabled (5.1.6.5.10.6).
"""

import struct

import attrs

from acrn_dm.base.records import define
from acrn_dm.devices.virtio_net.control import Answer, Command, Request
from acrn_dm.devices.virtio_net.request import RX_QUEUE, TX_QUEUE
from acrn_dm.virtio.queue import Queue

PARAMETERS = struct.Struct("<II")  # max_packets, max_usecs
ONE_QUEUE = struct.Struct("<HHII")  # vq_index, reserved, which is ignored, max_packets, max_usecs
WHICH = struct.Struct("<HH")  # vq_index, reserved

COMMANDS = frozenset(c for c in Command if c.value[0] == 6)
Limits = tuple[int, int]  # max_packets, max_usecs
OFF: Limits = (0, 0)


@define(eq=False)
class Coalescing:
    """The parameters of one card, from its driver's first command to the reset. Control queue's loop and control
    threads, which exclude each other by the device's stop.
    """

    of_all: dict[int, Limits] = attrs.field(factory=lambda: {RX_QUEUE: OFF, TX_QUEUE: OFF}, init=False)
    of_one: dict[int, Limits] = attrs.field(factory=dict, init=False)  # by queue, where that says otherwise
    _queues: dict[int, Queue] = attrs.field(factory=dict, init=False, repr=False)  # those that run

    def take(self, queue: Queue) -> None:
        """*queue*, a receive or transmit queue, runs from now on."""
        self._queues[queue.index] = queue
        limits = self._limits(queue.index)
        if limits != OFF:
            queue.coalesce(*limits)

    def release(self, index: int) -> None:
        """The driver has reset queue *index* alone: enabled anew, it has what all of its kind have."""
        self._queues.pop(index, None)
        self.of_one.pop(index, None)

    def stop(self) -> None:
        """No queue runs any more; parameters stay."""
        self._queues.clear()

    def reset(self) -> None:
        """All of them are 0."""
        self.of_all = {RX_QUEUE: OFF, TX_QUEUE: OFF}
        self.of_one.clear()

    def carry_out(self, request: Request) -> Answer:
        """What is done about *request*, one of COMMANDS."""
        if request.command is Command.NOTF_COAL_VQ_SET:
            return self.set_one(request.data)
        if request.command is Command.NOTF_COAL_VQ_GET:
            return self.get_one(request.data) or False
        return self.set_all(TX_QUEUE if request.command is Command.NOTF_COAL_TX_SET else RX_QUEUE, request.data)

    def set_all(self, kind: int, data: bytes) -> bool:
        """RX_SET or TX_SET with *data*: of all queues of *kind*, whatever was said of one."""
        self.of_all[kind] = PARAMETERS.unpack(data)
        self.of_one = {index: limits for index, limits in self.of_one.items() if index % 2 != kind}
        for queue in self._queues.values():
            if queue.index % 2 == kind:
                queue.coalesce(*self.of_all[kind])
        return True

    def set_one(self, data: bytes) -> bool:
        """VQ_SET with *data*; False where no receive or transmit queue of that number is enabled."""
        index, _, *limits = ONE_QUEUE.unpack(data)
        if index not in self._queues:
            return False
        self.of_one[index] = (limits[0], limits[1])
        self._queues[index].coalesce(*limits)
        return True

    def get_one(self, data: bytes) -> bytes | None:
        """The answer to VQ_GET with *data*; None where no such queue is enabled."""
        index, _ = WHICH.unpack(data)
        return PARAMETERS.pack(*self._limits(index)) if index in self._queues else None

    def _limits(self, index: int) -> Limits:
        return self.of_one.get(index, self.of_all[index % 2])
