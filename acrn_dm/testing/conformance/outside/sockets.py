"""Sockets that are connected to the ports of the built-in console."""

import socket
import tempfile
from collections.abc import Sequence

from acrn_dm.devices import virtio_console
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.testing.conformance.outside.world import Terminals
from acrn_dm.testing.conformance.subject import SLOT
from acrn_dm.testing.machine import SimMachine


class SocketTerminals(Terminals):
    """A ``virtio-console`` whose ports are sockets: the first a console, the others serial ports. ``close`` removes
    their directory::

        terminals = SocketTerminals(ports=2)
        conform(terminals.build, outside=terminals)
    """

    def __init__(self, ports: int = 2) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="acrn-dm-conform-")
        self._names = [f"p{n}" for n in range(ports)]
        self._ends: list[socket.socket] = []
        self._machine: SimMachine | None = None
        self._device: ConsoleDevice | None = None
        self._built = 0

    def build(self, machine: SimMachine) -> ConsoleDevice:
        """Put the console into its slot, and connect to all ports; what is connected is this from now on."""
        self._built += 1
        kind = virtio_console.acrn_dm_device_types()[0]
        ports = [f"socket:{name}={self._path(name)}:server" for name in self._names]
        device: ConsoleDevice = machine.add(kind, "@" + ",".join(ports), slot=SLOT).device  # type: ignore[attr-defined]
        machine.start()
        self.close_ends()
        self._machine, self._device = machine, device
        self._ends = [self._connect(name) for name in self._names]
        machine.settle()
        return device

    def send(self, port: int, data: bytes) -> None:
        """As much as the socket takes."""
        self._ends[port].send(data)

    def received(self, port: int) -> bytes:
        """Whatever is there."""
        try:
            return self._ends[port].recv(1 << 16)
        except BlockingIOError:
            return b""

    def connect(self, port: int, connected: bool) -> None:
        """The console serves one client."""
        self._ends[port].close()
        if connected:
            self._ends[port] = self._connect(self._names[port])

    def resize(self, columns: int, rows: int) -> None:
        """A socket has no size: the device is told as by a terminal."""
        assert self._device is not None
        self._device.resize(0, columns, rows)

    @property
    def names(self) -> Sequence[bytes]:
        """p0, p1 ..."""
        return [name.encode() for name in self._names]

    def close_ends(self) -> None:
        """Hang up."""
        for end in self._ends:
            end.close()
        self._ends = []

    def close(self) -> None:
        """Hang up, and remove the sockets' directory."""
        self.close_ends()
        self._directory.cleanup()

    def _path(self, name: str) -> str:
        return f"{self._directory.name}/{name}.{self._built}"

    def _connect(self, name: str) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(self._path(name))
        end.setblocking(False)
        return end
