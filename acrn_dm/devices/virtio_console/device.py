"""virtio-console (virtio 5.3): joins ports, control queues and the configuration space.

Queues: port 0 has 0 (to the guest) and 1; 2 and 3 are the control queues; port n > 0 has 2n + 2 and 2n + 3. There are
as many as the ports need, not for 16 ports always as in the original: each costs the driver a vector and the hypervisor
a kick. All of them share one I/O loop with the backends.
"""

import functools
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.files.claims import Claim, socket_claim
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.loopwork import guarded
from acrn_dm.devices.terminal.size import Size
from acrn_dm.devices.virtio_console import host
from acrn_dm.devices.virtio_console.backend import FileBackend, PortBackend, PtyBackend, StdioBackend, TtyBackend
from acrn_dm.devices.virtio_console.config import ConsoleConfig, PortConfig
from acrn_dm.devices.virtio_console.control import ControlQueues
from acrn_dm.devices.virtio_console.port import Port
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.placement import Placement, at_socket
from acrn_dm.virtio.queue import Queue

SIZE, MULTIPORT, EMERG_WRITE = 1 << 0, 1 << 1, 1 << 2  # feature bits, 5.3.3
CONFIG = struct.Struct("<HHII")  # cols, rows, max_nr_ports, emerg_wr: 5.3.4
EMERG_OFFSET = 8
QUEUE_SIZE = 64
CONTROL_TO_GUEST, CONTROL_FROM_GUEST = 2, 3
DEFAULT_SIZE = (80, 25)  # columns, rows, of what is no terminal; as in the original


def make_backend(config: PortConfig, label: str) -> PortBackend:
    """Make the backend of a port; nothing is opened."""
    if config.path is None:
        return StdioBackend(label) if config.type == "stdio" else PtyBackend(label)
    if config.type == "socket":
        from acrn_dm.devices.virtio_console.backend_socket import ClientBackend, ServerBackend  # noqa: PLC0415

        return ServerBackend(label, config.path) if config.role == "server" else ClientBackend(label, config.path)
    if config.type == "tty":
        return TtyBackend(label, config.path)
    return FileBackend(label, config.path)


def port_of(queue: int) -> int:
    """Number of the port that *queue* belongs to; the control queues have none and are not asked for."""
    return 0 if queue < 2 else (queue - 2) // 2


class ConsoleDevice(VirtioDevice):
    """Consoles and named serial ports."""

    device_id = 3
    pci_class = 0x078000
    transitional = True
    in_order = True

    def __init__(self, config: ConsoleConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self.ports = tuple(
            Port(i, port, make_backend(port, f"{self.name}: port {port.name}")) for i, port in enumerate(config.ports)
        )
        self.control: ControlQueues | None = None
        self._loop: IoLoop | None = None
        self._size = DEFAULT_SIZE
        self._sizes: dict[int, Size] = {}  # of the ports' terminals, as last seen

    @property
    def features(self) -> int:
        """5.3.3."""
        if self.config.vhost_user is not None:
            return 0  # the other process says what it has
        return SIZE | MULTIPORT | EMERG_WRITE

    @property
    def queue_sizes(self) -> Sequence[int]:
        """See the module."""
        return (QUEUE_SIZE,) * (2 + 2 * self.config.queue_ports)

    @property
    def config_size(self) -> int:
        """5.3.4."""
        return CONFIG.size

    @property
    def placement(self) -> Placement:
        """Another process, if asked for; the ports' types, or its socket."""
        if self.config.vhost_user is not None:
            return at_socket(self.config.vhost_user)
        ports = (port.type if port.path is None else f"{port.type} {port.path}" for port in self.config.ports)
        return Placement(text=", ".join(ports))

    @property
    def uses_terminal(self) -> bool:
        """A port on stdio."""
        return any(port.type == "stdio" for port in self.config.ports)

    def check(self) -> list[str]:
        """Whether all ports can be opened."""
        found = [(port, host.problem(port)) for port in self.config.ports]
        return [f"{self.name}: port {port.name}: {why}" for port, why in found if why is not None]

    def claims(self) -> Sequence[Claim]:
        """The ports' terminals, files and sockets, or the other process's socket."""
        if self.config.vhost_user is not None:
            return [socket_claim(self.config.vhost_user)]
        return [claim for port in self.config.ports for claim in host.claims(port)]

    def realize(self, resources: Resources) -> None:
        """Open all backends; those that wait for a connection begin to. Raises ConfigError or HostError."""
        self._loop = resources.io_loop("io")
        for port in self.ports:
            port.backend.open()
        for port in self.ports:
            port.again = guarded(self, port.pump)
            port.backend.on_quit = resources.quit
            port.backend.on_resize = functools.partial(self._resized, port)
            port.backend.attach(self._loop, port.again, functools.partial(self._changed, port))
        if self.ports:
            self._size = self.ports[0].backend.window_size() or DEFAULT_SIZE

    def sandbox_needs(self) -> Needs:
        """What its ports do."""
        return Needs(groups=[group for port in self.ports for group in port.backend.sandbox_groups])

    def read_config(self, offset: int, size: int) -> bytes:
        """cols and rows are port 0's."""
        return CONFIG.pack(*self._size, self.config.queue_ports, 0)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """emerg_wr: the low byte goes out on port 0, whatever state the device is in (5.3.4.1)."""
        if offset <= EMERG_OFFSET < offset + len(data):
            at = EMERG_OFFSET - offset
            self.ports[0].backend.emergency(data[at : at + 1])

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """Give the ports their queues; without MULTIPORT there is only port 0 (5.3.5)."""
        by_index = {queue.index: queue for queue in queues}
        multiport = bool(features & MULTIPORT)
        if multiport != (self.control is not None):
            self.reset()
            self.control = ControlQueues(self.name, self.ports) if multiport else None
        if self.control is not None:
            self.control.use(by_index.get(CONTROL_TO_GUEST), by_index.get(CONTROL_FROM_GUEST))
        for port in self.ports if multiport else self.ports[:1]:
            first = 2 * port.index + 2 if port.index else 0
            port.guest_open = port.guest_open or not multiport
            console = port.config.console or not multiport
            port.start(by_index.get(first), by_index.get(first + 1), console=console)

    def plane(self, features: int, queue: Queue) -> Plane | None:
        """What serves the queue of a port without Python."""
        if queue.index in (CONTROL_TO_GUEST, CONTROL_FROM_GUEST) or port_of(queue.index) >= len(self.ports):
            return None
        return self.ports[port_of(queue.index)].plane(queue)

    def handle_queue(self, queue: Queue) -> None:
        """Buffers or bytes of a port, or control messages."""
        if queue.index in (CONTROL_TO_GUEST, CONTROL_FROM_GUEST):
            if self.control is not None:
                for port in self.control.pump():
                    port.pump()
        elif port_of(queue.index) < len(self.ports):
            self.ports[port_of(queue.index)].pump()

    def stop(self) -> None:
        """Let go of the queues; what the driver has said about ports stays said, as it may go on."""
        with self._held():
            for port in self.ports:
                port.stop()
            if self.control is not None:
                self.control.use(None, None)
        if self._loop is not None:
            self._loop.call_soon(self._rest)

    def reset(self) -> None:
        """Forget the driver; the host's side stays as it is."""
        with self._held():
            for port in self.ports:
                port.reset()
            self.control = None

    def close(self) -> None:
        """Close all backends; terminals become what they were."""
        self.stop()
        with self._held():
            for port in self.ports:
                port.last_words()
        for port in self.ports:
            port.backend.close()

    def resize(self, port: int, columns: int, rows: int) -> None:
        """The terminal behind *port* now has that size. Any thread."""
        if port == 0 and (columns, rows) != self._size:
            self._size = (columns, rows)
            self.config_changed()  # 5.3.6: how drivers without MULTIPORT learn it
        if self._loop is not None:
            self._loop.call_soon(guarded(self, lambda: self._announce_size(self.ports[port], columns, rows)))

    def window_changed(self) -> None:
        """This process's terminal changed its size (SIGWINCH): look at all terminals. Any thread."""
        for port in self.ports:
            self._resized(port)

    def _resized(self, port: Port) -> None:
        """The terminal behind *port* may have another size."""
        size = port.backend.window_size()
        if size is not None and size != self._sizes.get(port.index):
            self._sizes[port.index] = size
            self.resize(port.index, *size)

    def _held(self) -> AbstractContextManager[None]:
        """Keep the loop waiting: backends call their ports at any time."""
        return self._loop.held() if self._loop is not None else nullcontext()

    def _announce_size(self, port: Port, columns: int, rows: int) -> None:
        if self.control is not None:
            self.control.size_changed(port, columns, rows)

    def _changed(self, port: Port, connected: bool) -> None:
        """The host side of *port* came or went; on the loop, after whatever noticed it has returned."""

        def follow() -> None:
            if not connected:
                port.reader_left()
            if self.control is not None:
                self.control.connection_changed(port, connected=connected)
            port.pump()

        guarded(self, follow)()

    def _rest(self) -> None:
        """No driver: the host's bytes wait where they are, a slow reader may take what is kept for it."""
        for port in self.ports:
            if port.rx is None and port.tx is None:
                port.pump()
