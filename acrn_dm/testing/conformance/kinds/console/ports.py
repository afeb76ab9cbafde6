"""Bytes and messages of a console, as its driver has them (virtio 5.3)."""

import functools
import struct

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import Terminals
from acrn_dm.testing.driver import VirtioDriver

SIZE, MULTIPORT, EMERG_WRITE = 1 << 0, 1 << 1, 1 << 2
TO_GUEST, FROM_GUEST = 2, 3
DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = range(8)
MAX_PORTS_AT, EMERG_AT = 4, 8
MESSAGE = struct.Struct("<IHH")  # id, event, value: struct virtio_console_control
TURNS = 200  # of the machine, for what the host's side of a port takes


@attrs.frozen
class Message:
    """A control message of the device's."""

    port: int
    event: int
    value: int
    data: bytes = b""


def _read(data: bytes) -> Message:
    port, event, value = MESSAGE.unpack_from(data)
    return Message(port, event, value, data[MESSAGE.size :])


def rx_queue(port: int) -> int:
    """Number of the queue to the guest (5.3.2)."""
    return 2 * port + 2 if port else 0


@attrs.define(eq=False)
class Console:
    """A started console and, if one was given, what is connected to its ports."""

    bench: Bench
    driver: VirtioDriver

    @functools.cached_property
    def host(self) -> Terminals:
        """The ports' other side. Raises NotApplicable."""
        return world(self.bench, Terminals)

    @property
    def max_ports(self) -> int:
        """max_nr_ports."""
        return int.from_bytes(self.driver.read_config(MAX_PORTS_AT, 4), "little")

    def post(self, port: int, *sizes: int) -> None:
        """Give receive buffers."""
        queue = self.driver.queue(rx_queue(port))
        for size in sizes:
            queue.send([], [size])
        queue.kick()
        self.bench.machine.settle()

    def received(self, port: int, length: int) -> bytes:
        """What arrives at *port*, until it is so many bytes or nothing comes any more."""
        data = b""
        for _ in range(TURNS):
            self._turn()
            done = self.driver.queue(rx_queue(port)).completed()
            for chain in done:
                assert 0 < chain.written <= len(chain.data), f"a receive buffer comes back with {chain.written} bytes"
            data += b"".join(chain.data[: chain.written] for chain in done)
            if len(data) >= length:
                break
        return data

    def send(self, port: int, *parts: bytes) -> None:
        """Send one chain."""
        queue = self.driver.queue(rx_queue(port) + 1)
        queue.send(list(parts))
        queue.kick()
        self.bench.machine.settle()

    def came_out(self, port: int, length: int) -> bytes:
        """What comes out of *port* on the host, until it is so many bytes or nothing comes any more."""
        data = b""
        for _ in range(TURNS):
            self._turn()
            data += self.host.received(port)
            if len(data) >= length:
                break
        return data

    def control(self, event: int, port: int = 0, value: int = 1) -> None:
        """Send a control message."""
        self.driver.queue(FROM_GUEST).transfer([MESSAGE.pack(port, event, value)])
        self.bench.machine.settle()

    def post_control(self, count: int = 32, size: int = 128) -> None:
        """Give buffers for control messages."""
        for _ in range(count):
            self.driver.queue(TO_GUEST).send([], [size])
        self.driver.queue(TO_GUEST).kick()
        self.bench.machine.settle()

    def messages(self) -> list[Message]:
        """Control messages since the last call."""
        self._turn()
        found = []
        for done in self.driver.queue(TO_GUEST).completed():
            assert done.written >= MESSAGE.size, f"a control message of {done.written} bytes"
            found.append(_read(done.data[: done.written]))
        return found

    def introduce(self) -> tuple[list[int], list[Message]]:
        """Bring up all ports as a driver does; returns which there are, and all other messages."""
        self.post_control()
        self.control(DEVICE_READY)
        ports = [m.port for m in self.messages() if m.event == DEVICE_ADD]
        said: list[Message] = []
        for port in ports:
            self.control(PORT_READY, port)
            self.control(PORT_OPEN, port)
            said += self.messages()
        return ports, said

    def _turn(self) -> None:
        """Let the machine and its loops go on; what a host's terminal or socket does takes a turn or two."""
        self.bench.machine.settle()


def console(bench: Bench, *, want: int = 0, without: int = 0) -> Console:
    """A console that is started with all it offers but *without*. Raises NotApplicable where *want* is not offered."""
    return Console(bench, started(bench, want=want, without=without))
