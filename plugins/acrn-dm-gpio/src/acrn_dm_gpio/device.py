"""virtio-gpio: the device (virtio 5.18)."""

import logging
import struct
from collections.abc import Callable, Sequence

from acrn_dm import AcrnDmError, Chain, Claim, DeviceContext, GuestError, IoLoop, Needs, Queue, Resources, VirtioDevice
from acrn_dm_gpio.bank import Bank
from acrn_dm_gpio.chip import LATER, Chip
from acrn_dm_gpio.config import GpioConfig
from acrn_dm_gpio.lines import Lines, Refused
from acrn_dm_gpio.simulated import Simulated

log = logging.getLogger(__name__)

F_IRQ = 1 << 0
REQUEST_QUEUE, EVENT_QUEUE = 0, 1
CONFIG = struct.Struct("<HHI")  # struct virtio_gpio_config: ngpio, padding, gpio_names_size
REQUEST, IRQ_REQUEST = struct.Struct("<HHI"), struct.Struct("<H")  # type, gpio, value; gpio
GET_NAMES, GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ = range(1, 7)
OK, ERROR = 0, 1
LEAST_SIZE, MOST_SIZE = 64, 4096
BATCH = 16  # requests before other devices on the loop have their turn


class GpioDevice(VirtioDevice):
    """Requests to lines, and interrupts to the driver."""

    device_id = 41
    in_order = None  # a line's interrupt comes when it comes
    pci_class = 0x088000  # system peripheral, other

    def __init__(self, config: GpioConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.bank: Bank = Simulated(self.name, config) if config.chip is None else Chip(self.name, config)
        self.lines = Lines(self.bank)
        self._names = b""
        self._features = 0
        self._loop: IoLoop | None = None
        self._events: Queue | None = None

    @property
    def features(self) -> int:
        """Interrupts."""
        return F_IRQ if self.config.irq else 0

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Requests; events, with a pair of buffers for each line."""
        pairs = 2 * (self.config.count or len(self.config.line) or MOST_SIZE // 2)
        size = max(LEAST_SIZE, 1 << (pairs - 1).bit_length())
        return (size, size) if self.config.irq else (size,)

    @property
    def config_size(self) -> int:
        """5.18.4."""
        return CONFIG.size

    @property
    def backend_text(self) -> str:
        """The bank."""
        return self.bank.text

    def claims(self) -> Sequence[Claim]:
        """The bank's."""
        return self.bank.claims()

    def check(self) -> list[str]:
        """The bank's."""
        return self.bank.check()

    def sandbox_needs(self) -> Needs:
        """Senders of lines, a script, and what is asked of a chip for each request."""
        config = self.config
        return Needs(
            groups=["accept"] if config.control is not None else [],
            reads=[config.script] if config.script is not None else [],
            ioctls=LATER if config.chip else (),
        )

    def realize(self, resources: Resources) -> None:
        """Open the bank. Raises ConfigError and HostError."""
        self._loop = resources.io_loop("io")
        self.bank.open(self._loop, self._changed)
        names = self.bank.names
        self.lines.count(len(names))
        self._names = b"".join(name.encode() + b"\0" for name in names) if any(names) else b""

    def read_config(self, offset: int, size: int) -> bytes:
        """5.18.4."""
        return CONFIG.pack(len(self.bank.names), 0, len(self._names))[offset : offset + size]

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """The driver is there."""
        assert self._loop is not None
        with self._loop.held():
            self._features = features
            self._events = next((queue for queue in queues if queue.index == EVENT_QUEUE), None)
            self.bank.started()

    def handle_queue(self, queue: Queue) -> None:
        """Requests, or buffers for interrupts. Raises GuestError."""
        for chain in queue.pop_batch(BATCH):
            if queue.index == REQUEST_QUEUE:
                self._request(queue, chain)
            else:
                self._unmask(queue, chain)
        if self._events is not None:
            self._events.flush()  # a request may have returned buffers there

    def stop(self) -> None:
        """Buffers of the event queue are nobody's, until they are popped again."""
        if self._loop is not None:
            with self._loop.held():
                self._events = None
                self.lines.forget_buffers()

    def reset(self) -> None:
        """Lines are as at power-on."""
        if self._loop is not None:
            with self._loop.held():
                self.lines.forget()

    def close(self) -> None:
        """Close the bank."""
        self.bank.close()

    def _request(self, queue: Queue, chain: Chain) -> None:
        data = chain.read(REQUEST.size)
        if chain.writable_bytes < 2:
            raise GuestError(f"{chain.writable_bytes} bytes of room for a response")
        kind, line, value = REQUEST.unpack(data.ljust(REQUEST.size, b"\xff"))
        if kind == GET_NAMES:
            self._answer_names(chain, valid=len(data) == REQUEST.size)
        else:
            chain.write(self._answer(kind, line, value))
        queue.push(chain)

    def _answer_names(self, chain: Chain, *, valid: bool) -> None:
        if valid and self._names and chain.writable_bytes > len(self._names):
            chain.write(bytes([OK]) + self._names)
        else:
            chain.write(bytes([ERROR, 0]))

    def _answer(self, kind: int, line: int, value: int) -> bytes:
        getters: dict[int, Callable[[int], int]] = {GET_DIRECTION: self.lines.direction, GET_VALUE: self.lines.level}
        setters = {SET_DIRECTION: self.lines.set_direction, SET_VALUE: self.lines.set_value}
        if self._features & F_IRQ:
            setters[SET_IRQ] = self.lines.set_irq
        try:
            if kind in getters:
                return bytes([OK, getters[kind](line)])
            if kind in setters:
                setters[kind](line, value)
                return bytes([OK, 0])
            log.debug("%s: message of type %d", self.name, kind)
        except Refused as e:
            log.debug("%s: message of type %d for line %d: %s", self.name, kind, line, e)
        except OSError as e:
            log.warning("%s: line %d: %s", self.name, line, e.strerror)
        return bytes([ERROR, 0])

    def _unmask(self, queue: Queue, chain: Chain) -> None:
        data = chain.read(IRQ_REQUEST.size)
        if chain.writable_bytes < 1:
            raise GuestError("no room for an interrupt's status")

        def answer(valid: bool) -> None:
            chain.write(bytes([valid]))
            queue.push(chain)

        if len(data) == IRQ_REQUEST.size and self._features & F_IRQ:
            (line,) = IRQ_REQUEST.unpack(data)
            self.lines.unmask(line, answer)
        else:
            answer(False)

    def _changed(self, line: int, level: int) -> None:
        """The bank has seen something, on the loop's thread."""
        try:
            self.lines.changed(line, level)
            if self._events is not None:
                self._events.flush()
        except AcrnDmError as e:  # handle_queue's usual caller would do the same
            self.fail(e)
