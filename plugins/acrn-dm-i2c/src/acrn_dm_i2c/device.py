"""virtio-i2c: the device (virtio 5.16)."""

import itertools
from collections.abc import Sequence

from acrn_dm import Claim, DeviceContext, IoLoop, Needs, Queue, Resources, VirtioDevice
from acrn_dm_i2c.config import I2cConfig
from acrn_dm_i2c.host import I2C_RDWR, HostBus
from acrn_dm_i2c.message import Bus, BusError, Request
from acrn_dm_i2c.simulated import Simulated

ZERO_LENGTH_REQUEST = 1 << 0
QUEUE_SIZE = 256
BATCH = 8  # transactions before other devices on the loop have their turn


class I2cDevice(VirtioDevice):
    """Groups of requests become transactions of the bus."""

    device_id = 34
    pci_class = 0x0C0500  # SMBus controller

    def __init__(self, config: I2cConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.bus: Bus = Simulated(self.name, config) if config.bus is None else HostBus(self.name, config)
        self._failing = False  # a group that goes on has failed
        self._loop: IoLoop | None = None

    @property
    def features(self) -> int:
        """5.16.3: one, and a driver without it is refused."""
        return ZERO_LENGTH_REQUEST

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Requests."""
        return (QUEUE_SIZE,)

    @property
    def backend_text(self) -> str:
        """The bus."""
        return self.bus.text

    def loop_name(self, queue: int) -> str:
        """A bus of the host makes its requests wait, and must not make others wait."""
        return self.name if self.bus.slow else "io"

    def claims(self) -> Sequence[Claim]:
        """The bus's."""
        return self.bus.claims()

    def check(self) -> list[str]:
        """The bus's."""
        return self.bus.check()

    def sandbox_needs(self) -> Needs:
        """Senders of lines, a script, and the transfers of a bus."""
        config = self.config
        return Needs(
            groups=["accept"] if config.control is not None else [],
            reads=[config.script] if config.script is not None else [],
            ioctls=[I2C_RDWR] if config.bus else (),
        )

    def realize(self, resources: Resources) -> None:
        """Open the bus. Raises ConfigError and HostError."""
        self._loop = resources.io_loop(self.loop_name(0))
        self.bus.open(self._loop)

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """The driver is there."""
        assert self._loop is not None
        with self._loop.held():
            self.bus.started()

    def handle_queue(self, queue: Queue) -> None:
        """Requests, in order. Raises GuestError."""
        for _ in range(BATCH):
            group = self._next_group(queue)
            if not group:
                return
            for request, read in zip(group, self._carry_out(group), strict=True):
                queue.push(request.chain, request.finish(read))
            queue.flush()

    def reset(self) -> None:
        """No group is under way."""
        self._failing = False

    def close(self) -> None:
        """Close the bus."""
        self.bus.close()

    def _next_group(self, queue: Queue) -> list[Request]:
        """The requests of the next group, as far as they are there."""
        group: list[Request] = []
        while not group or group[-1].more:
            chains = queue.pop_batch(1)
            if not chains:
                break
            group.append(Request.parse(chains[0]))
        return group

    def _carry_out(self, group: Sequence[Request]) -> list[bytes | None]:
        """What each of the group has read; None for those that failed or were not tried."""
        messages = [request.message for request in itertools.takewhile(lambda it: it.message is not None, group)]
        results: list[bytes] = []
        if messages and not self._failing:
            try:
                results = self.bus.transfer([message for message in messages if message is not None])
            except BusError as e:
                results = e.done
        failed = len(group) - len(results)
        self._failing = bool(failed) and group[-1].more
        return [*results, *[None] * failed]
