"""Devices that only offer and show: what rules of offers and configuration spaces look at."""

from collections.abc import Callable, Mapping, Sequence

import attrs

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing.conformance import SLOT
from acrn_dm.testing.machine import SimMachine
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue


@attrs.frozen(kw_only=True)
class Paper:
    """What such a device is: *config* has bytes at offsets, the rest is 0."""

    kind: int
    features: int = 0
    config: Mapping[int, bytes] = attrs.field(factory=dict)
    size: int = 0
    queues: int = 3
    serve: Callable[[Queue], None] | None = None

    def build(self, machine: SimMachine) -> None:
        """Put it into its slot."""
        machine.add(lambda context: PaperDevice(context, self), slot=SLOT)


class PaperDevice(VirtioDevice):
    """The device."""

    def __init__(self, context: DeviceContext, paper: Paper) -> None:
        super().__init__(context)
        self.paper = paper
        self.device_id = paper.kind  # type: ignore[misc]
        self.transitional = paper.kind <= 5  # type: ignore[misc]

    @property
    def features(self) -> int:
        return self.paper.features

    @property
    def queue_sizes(self) -> Sequence[int]:
        return (64,) * self.paper.queues

    @property
    def config_size(self) -> int:
        return self.paper.size

    def read_config(self, offset: int, size: int) -> bytes:
        space = bytearray(self.paper.size)
        for at, data in self.paper.config.items():
            space[at : at + len(data)] = data
        return bytes(space[offset : offset + size])

    def handle_queue(self, queue: Queue) -> None:
        if self.paper.serve is not None:
            self.paper.serve(queue)
