"""The control queues of a multiport console (virtio 5.3.6.2): who says what when.

A message waits until the driver has posted a buffer for it. While too many wait, the driver's own messages are not
taken from their queue, so a driver that asks and never listens costs us nothing.
"""

import logging
from collections import deque
from collections.abc import Sequence

import attrs

from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_console.port import Port
from acrn_dm.devices.virtio_console.request import MESSAGE, Control, Event, message, parse, resize
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

MAX_WAITING = 128  # messages; each one of the driver's makes at most 4 or, once, one per port
BATCH = 64


@define(eq=False)
class ControlQueues:
    """The two control queues, from DRIVER_OK to reset of a driver with MULTIPORT; on the loop's thread only. While it
    has no queues, what there is to say waits.
    """

    name: str
    ports: Sequence[Port]
    to_guest: Queue | None = attrs.field(default=None, init=False)
    from_guest: Queue | None = attrs.field(default=None, init=False)
    _added: bool = attrs.field(default=False, init=False)
    _waiting: deque[bytes] = attrs.field(factory=deque, init=False)

    def use(self, to_guest: Queue | None, from_guest: Queue | None) -> None:
        """Take the driver's queues, or let go of them."""
        self.to_guest, self.from_guest = to_guest, from_guest

    def pump(self) -> list[Port]:
        """Read and send what can be; returns the ports whose driver side changed. Raises GuestError."""
        changed = []
        self._send()
        for _ in range(BATCH):
            if self.from_guest is None or len(self._waiting) > MAX_WAITING:
                break
            chains = self.from_guest.pop_batch(1)
            if not chains:
                break
            control = parse(chains[0].read(MESSAGE.size), len(self.ports))
            self.from_guest.push(chains[0], 0)
            port = self._handle(control)
            if port is not None:
                changed.append(port)
        if self.from_guest is not None:
            self.from_guest.flush()
        self._send()
        return changed

    def connection_changed(self, port: Port, *, connected: bool) -> None:
        """The host side of *port* came or went. What still waits about that is out of date."""
        if port.ready:
            states = [message(Event.PORT_OPEN, port.index, value) for value in (0, 1)]
            self._waiting = deque(m for m in self._waiting if m not in states)
            self._waiting.append(states[connected])
            self._send()

    def size_changed(self, port: Port, columns: int, rows: int) -> None:
        """The terminal behind *port* has another size."""
        if port.ready and port.config.console and len(self._waiting) <= MAX_WAITING:
            self._waiting.append(resize(port.index, columns, rows))
            self._send()

    def _handle(self, control: Control | None) -> Port | None:
        if control is None:
            return None
        if control.event is Event.DEVICE_READY:
            self._add_ports(control.value)
            return None
        port = self.ports[control.port]
        if control.event is Event.PORT_READY:
            self._introduce(port, control.value)
            return None
        port.guest_open = control.value != 0
        return port

    def _add_ports(self, value: int) -> None:
        if value != 1:
            log.warning("%s: the driver could not set the device up", self.name)
        elif not self._added:  # 5.3.6.2.1: an existing port must not be added again
            self._added = True
            self._waiting.extend(message(Event.DEVICE_ADD, port.index) for port in self.ports)

    def _introduce(self, port: Port, value: int) -> None:
        if value != 1:
            log.warning("%s: the driver could not set port %s up", self.name, port.config.name)
            return
        port.ready = True
        if port.config.console:
            self._waiting.append(message(Event.CONSOLE_PORT, port.index, 1))
            size = port.backend.window_size()
            if size is not None:
                self._waiting.append(resize(port.index, *size))
        self._waiting.append(message(Event.PORT_NAME, port.index, 1, port.config.name.encode()))
        if port.backend.connected:
            self._waiting.append(message(Event.PORT_OPEN, port.index, 1))

    def _send(self) -> None:
        """Send waiting messages, one a buffer."""
        if self.to_guest is None:
            return
        while self._waiting:
            chains = self.to_guest.pop_batch(1)
            if not chains:
                break
            if chains[0].writable_bytes < len(self._waiting[0]):
                raise GuestError(f"control buffer of {chains[0].writable_bytes} bytes, too small for its message")
            chains[0].write(self._waiting.popleft())
            self.to_guest.push(chains[0])
        self.to_guest.flush()
