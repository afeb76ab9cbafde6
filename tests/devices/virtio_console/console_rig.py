"""A machine with one virtio-console."""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from acrn_dm.devices.virtio_console import acrn_dm_device_types
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.testing import SimMachine, VirtioDriver

SIZE, MULTIPORT, EMERG_WRITE = 1, 2, 4
TO_GUEST, FROM_GUEST = 2, 3
DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = range(8)
EMERG_AT = 8

Message = tuple[int, int, int, bytes]  # port, event, value, data


def rx_queue(port: int) -> int:
    """Number of the queue to the guest."""
    return 2 * port + 2 if port else 0


def tx_queue(port: int) -> int:
    """Number of the queue from the guest."""
    return rx_queue(port) + 1


@attrs.define(eq=False)
class Console:
    """The machine, the device and its driver."""

    machine: SimMachine
    device: ConsoleDevice
    driver: VirtioDriver

    def control(self, event: int, port: int = 0, value: int = 1) -> None:
        """Send a control message."""
        self.driver.queue(FROM_GUEST).transfer([struct.pack("<IHH", port, event, value)])

    def post_control(self, count: int = 32, size: int = 128) -> None:
        """Give buffers for control messages."""
        for _ in range(count):
            self.driver.queue(TO_GUEST).send([], [size])
        self.driver.queue(TO_GUEST).kick()
        self.machine.settle()

    def messages(self) -> list[Message]:
        """Control messages that arrived since the last call."""
        done = self.driver.queue(TO_GUEST).completed()
        return [(*struct.unpack_from("<IHH", c.data), c.data[8 : c.written]) for c in done]

    def bring_up(self, *open_ports: int) -> list[Message]:
        """What a Linux driver does; returns all it is told."""
        self.post_control()
        self.control(DEVICE_READY)
        for port in range(len(self.device.ports)):
            self.control(PORT_READY, port)
        for port in open_ports:
            self.control(PORT_OPEN, port)
        self.machine.settle()
        return self.messages()

    def post(self, port: int, *sizes: int) -> None:
        """Give receive buffers."""
        for size in sizes:
            self.driver.queue(rx_queue(port)).send([], [size])
        self.driver.queue(rx_queue(port)).kick()
        self.machine.settle()

    def received(self, port: int) -> bytes:
        """What arrived since the last call."""
        self.machine.settle()
        return b"".join(c.data[: c.written] for c in self.driver.queue(rx_queue(port)).completed())

    def send(self, port: int, *data: bytes) -> None:
        """Send one chain; it may stay in flight."""
        self.driver.queue(tx_queue(port)).send(list(data))
        self.driver.queue(tx_queue(port)).kick()
        self.machine.settle()

    def sent(self, port: int) -> int:
        """How many chains came back since the last call."""
        done = self.driver.queue(tx_queue(port)).completed()
        assert all(c.written == 0 for c in done)
        return len(done)

    def wait(self, condition: Callable[[], Any]) -> None:
        """Step the loop until *condition* holds; for what depends on timers."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "nothing happened"
            self.machine.io_loops["io"].step(0.05)
            self.machine.settle()


@contextmanager
def console(
    text: str, *, features: int | None = None, legacy: bool = False, start: bool = True, **machine: Any
) -> Iterator[Console]:
    """A console in slot 3; its driver is started unless told."""
    with SimMachine(**machine) as m:
        function = m.add(acrn_dm_device_types()[0], text, slot=3)
        driver = m.driver_legacy(3) if legacy else m.driver(3)
        if start:
            driver.start(features)
        m.settle()
        yield Console(m, function.device, driver)  # type: ignore[attr-defined]
