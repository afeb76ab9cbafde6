"""Consoles that are wrong (virtio 5.3), and entropy devices (5.4)."""

from collections.abc import Sequence
from typing import Any

from acrn_dm_rng import RngDevice

from acrn_dm import Chain, Queue
from acrn_dm.devices.virtio_console.control import ControlQueues
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.devices.virtio_console.port import Port
from acrn_dm.devices.virtio_console.request import Event, message
from tests.testing.conformance.mutants.registry import breaks


class _Console(ConsoleDevice):
    """A console whose control queues are of ``control_class``."""

    control_class: type[ControlQueues] = ControlQueues

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if features >> 1 & 1 and self.control is None:
            self.control = self.control_class(self.name, self.ports)
        super().start(features, queues)


class _AddsTwice(ControlQueues):
    def _add_ports(self, value: int) -> None:
        super()._add_ports(value)
        self._added = False
        super()._add_ports(value)


@breaks("console.add.existing", how="console")
class AddsItsPortsTwice(_Console):
    """Adds each port a second time."""

    control_class = _AddsTwice


class _AddsMore(ControlQueues):
    def _add_ports(self, value: int) -> None:
        super()._add_ports(value)
        self._waiting.append(message(Event.DEVICE_ADD, 31))


@breaks("console.add.range", how="console")
class AddsAPortTooMany(_Console):
    """Adds a port beyond max_nr_ports."""

    control_class = _AddsMore


class _RemovesMore(ControlQueues):
    def _add_ports(self, value: int) -> None:
        self._waiting.append(message(Event.DEVICE_REMOVE, 0))
        super()._add_ports(value)


@breaks("console.remove.unknown", how="console")
class RemovesAPortThatIsNotThere(_Console):
    """Removes a port that it has not added."""

    control_class = _RemovesMore


class _Nameless(ControlQueues):
    def _introduce(self, port: Port, value: int) -> None:
        super()._introduce(port, value)
        names = [m for m in self._waiting if m[4:6] == Event.PORT_NAME.to_bytes(2, "little")]
        for name in names:
            self._waiting.remove(name)


@breaks("d.con.name", "d.con.port_ready_flow", how="console")
class HasNoNames(_Console):
    """Never says a port's name."""

    control_class = _Nameless


class _Mute(ControlQueues):
    def _add_ports(self, value: int) -> None:
        """Nothing."""


@breaks("d.con.ready_flow", how="console")
class AddsNoPort(_Console):
    """Says nothing when its driver is ready."""

    control_class = _Mute


class _NeverOpen(ControlQueues):
    def _introduce(self, port: Port, value: int) -> None:
        super()._introduce(port, value)
        opened = message(Event.PORT_OPEN, port.index, 1)
        if opened in self._waiting:
            self._waiting.remove(opened)

    def connection_changed(self, port: Port, *, connected: bool) -> None:
        """Nothing."""


@breaks("d.con.open_both", "d.con.port_ready_flow", how="console")
class NeverOpensAPort(_Console):
    """Never says that a port is open on the host's side."""

    control_class = _NeverOpen


@breaks("d.con.resize_msg", how="console")
class SaysRowsFirst(_Console):
    """Says rows before columns when a terminal has another size."""

    def resize(self, port: int, columns: int, rows: int) -> None:
        if port == 0 and (columns, rows) != self._size:
            self._size = (columns, rows)
            self.config_changed()
        if self._loop is not None:
            self._loop.call_soon(lambda: self._announce_size(self.ports[port], rows, columns))


@breaks("d.con.size", "d.cfg.change_notify", how="console")
class ShowsAFixedSize(_Console):
    """Shows 80 columns and 25 rows, whatever its terminal has."""

    def read_config(self, offset: int, size: int) -> bytes:
        self._size = (80, 25)
        return super().read_config(offset, size)


@breaks("console.emerg_wr.unconfigured", "console.emerg_wr.output", how="console")
class IsDumbInAnEmergency(_Console):
    """Drops what is written to emerg_wr before DRIVER_OK."""

    def write_config(self, offset: int, data: bytes) -> None:
        transport: Any = self.transport
        if transport.core.running:
            super().write_config(offset, data)


@breaks("d.con.data", how="console")
class SwallowsOutput(_Console):
    """Takes what its guest sends and passes nothing on."""

    def plane(self, features: int, queue: Queue) -> None:
        """What is swallowed goes by Python."""

    def handle_queue(self, queue: Queue) -> None:
        if queue.index == 1:
            for chain in queue.pop_batch():
                queue.push(chain, 0)
        else:
            super().handle_queue(queue)


class _Source(RngDevice):
    """A source of entropy whose data ``bytes_for`` gives."""

    def bytes_for(self, chain: Chain) -> bytes:
        raise NotImplementedError

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            chain.write(self.bytes_for(chain))
            queue.push(chain)


@breaks("rng.at_least_one", how="entropy")
class GivesNoBytes(_Source):
    """Returns every buffer empty."""

    def bytes_for(self, chain: Chain) -> bytes:
        return b""


@breaks("d.rng.fill", "rng.at_least_one", how="entropy")
class GivesZeroes(_Source):
    """Fills every buffer with zeroes."""

    def bytes_for(self, chain: Chain) -> bytes:
        return bytes(chain.writable_bytes)


@breaks("d.rng.fill", "rng.at_least_one", how="entropy")
class RepeatsItself(_Source):
    """Fills every buffer with the same bytes."""

    def bytes_for(self, chain: Chain) -> bytes:
        return bytes(range(97, 97 + 128))[: chain.writable_bytes]
