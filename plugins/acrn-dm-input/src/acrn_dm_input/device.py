"""virtio-input: the device (virtio 5.8), which joins a source of events with the driver's queues."""

from collections.abc import Sequence

from acrn_dm import AcrnDmError, Claim, DeviceContext, IoLoop, Needs, Queue, Resources, VirtioDevice
from acrn_dm_input.config import InputConfig
from acrn_dm_input.description import CONFIG_BYTES, ConfigSpace
from acrn_dm_input.evdev import EVIOCGRAB, Evdev
from acrn_dm_input.played import Played
from acrn_dm_input.source import Source
from acrn_dm_input.updates import WIRE, Event, Updates

EVENT_QUEUE, STATUS_QUEUE = 0, 1
QUEUE_SIZE = 64


class InputDevice(VirtioDevice):
    """Events to the driver, LEDs from it."""

    device_id = 18
    pci_class = 0x098000  # input device, other

    def __init__(self, config: InputConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.updates = Updates()
        self.source: Source
        if config.evdev is not None:
            self.source = Evdev(self.name, config)
        else:
            self.source = Played(self.name, config, self.updates)
        self._space = ConfigSpace()
        self._loop: IoLoop | None = None
        self._queue: Queue | None = None  # the driver's, for events

    @property
    def backend_text(self) -> str:
        """The source."""
        return self.source.text

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Events, status (5.8.2)."""
        return (QUEUE_SIZE, QUEUE_SIZE)

    @property
    def config_size(self) -> int:
        """5.8.4."""
        return CONFIG_BYTES

    def claims(self) -> Sequence[Claim]:
        """The source's."""
        return self.source.claims()

    def check(self) -> list[str]:
        """The source's."""
        return self.source.check()

    def sandbox_needs(self) -> Needs:
        """Senders of lines, a script, and a device that is let go at the end."""
        config = self.config
        return Needs(
            groups=["accept"] if config.control is not None else [],
            reads=[config.script] if config.script is not None else [],
            ioctls=[EVIOCGRAB] if config.evdev else (),
        )

    def realize(self, resources: Resources) -> None:
        """Open the source. Raises ConfigError and HostError."""
        self._loop = resources.io_loop("io")
        self.source.open(self._loop, self._send)

    def read_config(self, offset: int, size: int) -> bytes:
        """What is selected."""
        return self._space.read(self.source.description, offset, size)

    def write_config(self, offset: int, data: bytes) -> None:
        """Select."""
        self._space.write(offset, data)

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """The driver is there."""
        assert self._loop is not None
        with self._loop.held():
            self._queue = next((queue for queue in queues if queue.index == EVENT_QUEUE), None)
            self.source.started()

    def handle_queue(self, queue: Queue) -> None:
        """Buffers for events, or LEDs. Raises GuestError and HostError."""
        if queue.index == EVENT_QUEUE:
            self.updates.send(queue)
            if self.updates.caught_up():
                self.source.catch_up()
            return
        while chains := queue.pop_batch():
            for chain in chains:
                data = chain.read(WIRE.size)
                if len(data) == WIRE.size:
                    self.source.status(Event(*WIRE.unpack(data)))
                queue.push(chain)

    def stop(self) -> None:
        """Nobody takes events."""
        if self._loop is not None:
            with self._loop.held():
                self._queue = None

    def reset(self) -> None:
        """Nothing is selected, and what waited was for another driver."""
        self._space.reset()
        self.updates.clear()

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def _send(self, events: Sequence[Event]) -> bool:
        """One update of the source's, on the loop's thread; returns whether the driver will get it."""
        queue = self._queue
        if queue is None or not self.updates.add(events, queue.size):
            return False
        try:
            self.updates.send(queue)
            queue.flush()
        except AcrnDmError as e:  # handle_queue's usual caller would do the same
            self.fail(e)
        return True
