"""Devices that are right: what the wrong ones of ``wrong`` derive from, each of which has one fault.

``Right`` has everything that the rules for all devices look at: two queues, features, a configuration space of which
the driver may write a part, the legacy interface. Its device id is that of a kind (9P) that has no rules of its own.
"""

from collections.abc import Sequence
from typing import Any

from acrn_dm import Chain, DeviceContext, Queue, Resources, VirtioDevice

READ_ONLY = bytes(range(1, 9))


def registers_of(device: VirtioDevice, index: int) -> Any:
    """The registers of a queue, with its addresses."""
    function: Any = device.transport
    return function.core.queues[index]


class Right(VirtioDevice):
    """Answers what it reads, backwards, and as much of it as fits. The last four bytes of its configuration are the
    driver's, until the reset.
    """

    device_id = 9
    pci_class = 0x010000
    transitional = True
    sizes: Sequence[int] = (64, 16)

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.shown = bytearray(READ_ONLY)
        self.noted = bytearray(4)
        self.queues: Sequence[Queue] = ()
        self.negotiated_features = 0

    @property
    def features(self) -> int:
        return 0b11

    @property
    def queue_sizes(self) -> Sequence[int]:
        return self.sizes

    @property
    def config_size(self) -> int:
        return 12

    def realize(self, resources: Resources) -> None:
        self.resources = resources

    def read_config(self, offset: int, size: int) -> bytes:
        return bytes(self.shown + self.noted)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        for at, byte in enumerate(data, offset):
            if at >= len(self.shown):
                self.noted[at - len(self.shown)] = byte

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.queues, self.negotiated_features = queues, features

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            self.answer(queue, chain)

    def answer(self, queue: Queue, chain: Chain) -> None:
        chain.write(chain.read(4096)[::-1])
        queue.push(chain)

    def stop(self) -> None:
        self.queues = ()

    def reset(self) -> None:
        self.noted = bytearray(4)

    # What only the wrong ones use: the way behind the contract.

    @property
    def function(self) -> Any:
        """The PCI function in front of the device: what no device has to touch."""
        return self.transport

    def ring_registers(self, index: int) -> Any:
        """The registers of a queue, with its addresses."""
        return registers_of(self, index)


class Later(Right):
    """Answers by a timer, some time after the kick; what it has not answered yet at a pause it does answer then."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.held: list[tuple[Queue, Chain]] = []

    def handle_queue(self, queue: Queue) -> None:
        self.held += [(queue, chain) for chain in queue.pop_batch()]
        queue.loop.call_later(0.002, self.answer_all)

    def answer_all(self) -> None:
        held, self.held = self.held, []
        for queue, chain in held:
            if not queue.closed:
                self.answer(queue, chain)
                queue.flush()

    def cancel(self) -> None:
        self.held = []

    def stop(self) -> None:
        self.answer_all()
        super().stop()


class Modern(Right):
    """The same without the legacy interface, of a kind (memory) that never had one and has no rules here."""

    device_id = 24
    transitional = False
