"""Rules of consoles: the built-in one keeps them all, and each is broken by a console that breaks it."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from acrn_dm.devices.virtio_console import control, port
from acrn_dm.devices.virtio_console.backend import PortBackend
from acrn_dm.devices.virtio_console.control import ControlQueues, Event
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.testing.conformance import conform, kinds
from acrn_dm.testing.conformance.outside.sockets import SocketTerminals
from acrn_dm.virtio.device import VirtioDevice
from tests.testing.conformance.kinds.judging import judged, rows_of

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def terminals() -> Iterator[SocketTerminals]:
    made = SocketTerminals(ports=2)
    yield made
    made.close()


@pytest.mark.stress
def test_console_keeps_every_rule(terminals: SocketTerminals) -> None:
    report = conform(terminals.build, outside=terminals, rules=kinds.RULES)
    assert report.failed == [], report.text()


def _method(owner: type, name: str, make: Callable[[Any], Any]) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, make(getattr(owner, name)))


def _reversed(was: Any) -> Any:
    return lambda self, views: was(self, [bytes(view)[::-1] for view in views])


def _swapped(index: int) -> int:
    return {0: 1, 1: 0}.get((index - 2) // 2 if index > 1 else 0, 0)


def _messages(change: Callable[[Event, int, int, bytes], tuple[Event, int, int, bytes]]) -> Patch:
    """Control messages of the device's are made otherwise."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        was = control.message
        monkeypatch.setattr(
            control, "message", lambda event, port, value=1, data=b"": was(*change(event, port, value, data))
        )

    return patch


def _far_ports(event: Event, port: int, value: int, data: bytes) -> tuple[Event, int, int, bytes]:
    return event, port + 40 * (event is Event.DEVICE_ADD), value, data


def _terminated(event: Event, port: int, value: int, data: bytes) -> tuple[Event, int, int, bytes]:
    return event, port, value, data + b"\0" * (event is Event.PORT_NAME)


def _rows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    was = control.resize
    monkeypatch.setattr(control, "resize", lambda port, columns, rows: was(port, rows, columns))


def _adds_again(was: Any) -> Any:
    def add(self: ControlQueues, value: int) -> None:
        self._added = False
        was(self, value)

    return add


def _adds_one(was: Any) -> Any:
    def add(self: ControlQueues, value: int) -> None:
        was(self, value)
        while len(self._waiting) > 1:
            self._waiting.pop()

    return add


def _removes(was: Any) -> Any:
    def add(self: ControlQueues, value: int) -> None:
        was(self, value)
        self._waiting.append(struct.pack("<IHH", 5, 2, 1))

    return add


def _early_names(was: Any) -> Any:
    def add(self: ControlQueues, value: int) -> None:
        was(self, value)
        self._waiting.extend(control.message(Event.PORT_NAME, port.index, 1, b"x") for port in self.ports)

    return add


def _silent(was: Any) -> Any:
    return lambda self, *args, **kwargs: None


def _after_accepting(was: Any) -> Any:
    def write(self: ConsoleDevice, offset: int, data: bytes) -> None:
        if self.control is not None:
            was(self, offset, data)

    return write


def _first_port(was: Any) -> Any:
    def start(self: ConsoleDevice, features: int, queues: Any) -> None:
        was(self, features, queues)
        for other in self.ports[1:]:
            other.backend.send = self.ports[0].backend.send  # type: ignore[method-assign]

    return start


def _answers_for_any(was: Any) -> Any:
    def pump(self: ControlQueues) -> Any:
        if self.from_guest is not None and self._added:
            self._waiting.append(struct.pack("<IHH", 77, 7, 1))
        return was(self)

    return pump


def _reversed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "can_serve", lambda backend: False)  # C would pass it by
    _method(PortBackend, "send", _reversed)(monkeypatch)


FAULTS: dict[str, Patch] = {
    "d.con.data": _reversed_output,
    "d.con.vq": _method(ConsoleDevice, "start", _first_port),
    "d.con.size": _method(VirtioDevice, "config_changed", _silent),
    "d.con.ready_flow": _method(ControlQueues, "_add_ports", _adds_one),
    "d.con.port_ready_flow": _method(ControlQueues, "_add_ports", _early_names),
    "d.con.name": _messages(_terminated),
    "d.con.open_both": _method(ControlQueues, "connection_changed", _silent),
    "d.con.resize_msg": _rows_first,
    "console.emerg_wr.unconfigured": _method(ConsoleDevice, "write_config", _after_accepting),
    "console.emerg_wr.output": _method(ConsoleDevice, "write_config", _silent),
    "console.add.existing": _method(ControlQueues, "_add_ports", _adds_again),
    "console.add.range": _messages(_far_ports),
    "console.remove.unknown": _method(ControlQueues, "_add_ports", _removes),
    "dm.con.foreign_port": _method(ControlQueues, "pump", _answers_for_any),
}


@pytest.mark.stress
@pytest.mark.parametrize("row", FAULTS)
def test_console_that_breaks_a_rule_fails_its_row(
    row: str, terminals: SocketTerminals, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[row](monkeypatch)
    assert judged(terminals.build, row, outside=terminals).failures


def test_every_row_has_a_fault() -> None:
    assert set(rows_of("console")) == set(FAULTS)
