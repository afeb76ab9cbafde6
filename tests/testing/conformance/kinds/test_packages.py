"""Rules of the kinds that packages bring: the packages keep them all, and each is broken by a device that breaks it."""

from collections.abc import Callable, Iterator
from typing import Any

import acrn_dm_i2c.message
import pytest
from acrn_dm_gpio.device import GpioDevice
from acrn_dm_gpio.lines import Line, Lines
from acrn_dm_i2c.device import I2cDevice
from acrn_dm_i2c.message import Request
from acrn_dm_input.description import Description
from acrn_dm_input.device import InputDevice
from acrn_dm_input.updates import SYN, WIRE, Updates

from acrn_dm.testing.conformance import conform, functions, kinds
from acrn_dm.virtio import features
from tests.testing.conformance.kinds import packages
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.paper import Paper

pytestmark = pytest.mark.stress  # a hundred machines

WORLDS = {
    "keyboard": packages.Keyboard,
    "tablet": packages.Tablet,
    "gpio": packages.Lines,
    "i2c": packages.Adapter,
    "balloon": packages.Host,
    "edu": packages.Edu,
}


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = WORLDS[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_package_keeps_every_rule(world: Any) -> None:
    rules = (*kinds.RULES, *functions.RULES)
    report = conform(world.build, outside=world, plugins=world.plugins, rules=rules)
    assert report.failed == [], report.text()


Make = Callable[[Any], Any]
Fault = tuple[type, str, Make]


def _always(value: Any) -> Make:
    return lambda was: lambda *args, **kwargs: value


def _config(at: int, byte: int) -> Make:
    """One byte of the configuration space reads otherwise."""

    def make(was: Any) -> Any:
        def read(self: Any, offset: int, size: int) -> bytes:
            data = bytearray(was(self, offset, size))
            if offset <= at < offset + size:
                data[at - offset] = byte
            return bytes(data)

        return read

    return make


def _value(change: Callable[[int, int, bytes], bytes]) -> Make:
    """What an input device says about itself is something else."""
    return lambda was: lambda self, select, subsel: change(select, subsel, was(self, select, subsel))


def _half(was: Any) -> Any:
    """An update goes out as far as there are buffers."""

    def send(self: Updates, queue: Any) -> None:
        while self._waiting:
            update = list(self._waiting[0])
            for chain in queue.pop_batch(len(update)):
                chain.write(WIRE.pack(*update.pop(0)))
                queue.push(chain)
            self._waiting.popleft()

    return send


def _cut_after_a_shortage(was: Any) -> Any:
    def send(self: Updates, queue: Any) -> None:
        if len(self._waiting) > 1:
            self._waiting[0] = self._waiting[0][1:]
        was(self, queue)

    return send


def _without_end(was: Any) -> Any:
    def add(self: Updates, events: Any, buffers: int) -> bool:
        taken = bool(was(self, events, buffers))
        if self._waiting and self._waiting[-1][-1] == SYN:
            self._waiting[-1] = self._waiting[-1][:-1]
        return taken

    return add


INPUT: dict[str, tuple[str, Fault]] = {
    "input.cfg.size0": ("keyboard", (Description, "value", _value(lambda s, b, data: data or b"\1"))),
    "d.inp.cfg_select": ("keyboard", (Description, "value", _value(lambda s, b, data: b"" if s == 1 else data))),
    "d.inp.string": ("keyboard", (Description, "value", _value(lambda s, b, data: data + b"\0" if s == 1 else data))),
    "d.inp.devids": ("keyboard", (Description, "value", _value(lambda s, b, data: data[:4] if s == 3 else data))),
    "d.inp.evbits": ("tablet", (Description, "value", _value(lambda s, b, data: b"" if (s, b) == (17, 3) else data))),
    "d.inp.absinfo": ("tablet", (Description, "value", _value(lambda s, b, data: data[:8] if s == 18 else data))),
    "d.inp.event": ("keyboard", (Updates, "add", _without_end)),
    "d.inp.status": (
        "keyboard",
        (InputDevice, "handle_queue", lambda was: lambda self, queue: was(self, queue) if queue.index == 0 else None),
    ),
    "input.drop.not_partial": ("tablet", (Updates, "send", _half)),
    "input.drop.whole": ("tablet", (Updates, "send", _cut_after_a_shortage)),
}


def _answers(change: Callable[[int, int, int, bytes], bytes]) -> Fault:
    """Requests of a GPIO controller are answered otherwise."""
    return (
        GpioDevice,
        "_answer",
        lambda was: lambda self, kind, line, value: change(kind, line, value, was(self, kind, line, value)),
    )


def _one_byte(was: Any) -> Any:
    def request(self: GpioDevice, queue: Any, chain: Any) -> None:
        chain.write(b"\0")
        queue.push(chain)

    return request


def _backwards(was: Any) -> Any:
    def handle(self: GpioDevice, queue: Any) -> None:
        for chain in list(queue.pop_batch())[::-1]:
            if queue.index == 0:
                self._request(queue, chain)
            else:
                self._unmask(queue, chain)

    return handle


def _names(change: Callable[[bytes], bytes]) -> Fault:
    def make(was: Any) -> Any:
        def realize(self: GpioDevice, resources: Any) -> None:
            was(self, resources)
            self._names = change(self._names)

        return realize

    return GpioDevice, "realize", make


def _keeps_lines(was: Any) -> Any:
    def forget(self: Lines, line: int) -> None:
        kept = self._lines[line]
        was(self, line)
        self._lines[line] = Line(value=kept.value, irq=kept.irq)

    return forget


def _latches(edges: bool, levels: bool) -> Make:
    def make(was: Any) -> Any:
        def changed(self: Lines, line: int, level: int) -> None:
            was(self, line, level)
            it = self._lines[line]
            if it.unmasked is None and not edges:
                it.latched = False
            if levels and it.irq in (4, 8):
                it.irq, it.latched = type(it.irq).RISING, True

        return changed

    return make


def _edge_survives(was: Any) -> Any:
    def set_irq(self: Lines, line: int, value: int) -> None:
        kept = self._lines[line].latched
        was(self, line, value)
        self._lines[line].latched = kept

    return set_irq


def _never_returned(was: Any) -> Any:
    return lambda self, it, *, valid: was(self, it, valid=valid) if valid else None


def _invalid(was: Any) -> Any:
    return lambda self, it, *, valid: was(self, it, valid=False)


def _once(was: Any) -> Any:
    def deliver(self: Lines, line: int) -> None:
        it = self._lines[line]
        if it.irq in (4, 8) and it.latched:
            return
        armed = it.unmasked is not None
        was(self, line)
        it.latched |= armed and it.unmasked is None and it.irq in (4, 8)

    return deliver


def _accepts(was: Any) -> Any:
    def unmask(self: Lines, line: int, answer: Any) -> None:
        self._lines[line].unmasked = answer

    return unmask


GPIO: dict[str, Fault] = {
    "gpio.resp.all_fields": (GpioDevice, "_request", _one_byte),
    "gpio.cfg.all_fields": (GpioDevice, "read_config", _config(0, 0)),
    "d.gpio.padding": (GpioDevice, "read_config", _config(2, 1)),
    "gpio.cfg.names0": (GpioDevice, "_answer_names", lambda was: lambda self, chain, valid: chain.write(b"\1\0")),
    "gpio.cfg.names_size": _names(lambda names: names + b"x"),
    "gpio.names.strings": _names(lambda names: b"led\0led\0\0\0"),
    "d.gpio.names_block": _names(lambda names: b"l\xe9d\0button\0\0\0"),
    "d.gpio.status_err": _answers(lambda kind, line, value, answer: b"\0" + answer[1:]),
    "d.gpio.dir_get": _answers(lambda kind, line, value, answer: b"\0\1" if kind == 2 else answer),
    "d.gpio.set_value_latched": (Lines, "set_value", _always(None)),
    "dm.gpio.value": _answers(lambda kind, line, value, answer: b"\0\0" if kind == 4 else answer),
    "gpio.order.same_line": (GpioDevice, "handle_queue", _backwards),
    "gpio.dir_none.discard": (Lines, "_forget", _keeps_lines),
    "gpio.irq.edge_latch": (Lines, "changed", _latches(edges=False, levels=False)),
    "gpio.irq.level_nolatch": (Lines, "changed", _latches(edges=True, levels=True)),
    "gpio.irq.disable_discard": (Lines, "set_irq", _edge_survives),
    "gpio.event.unmasked_enabled": (
        Lines,
        "set_irq",
        lambda was: lambda self, line, value: was(self, line, value or 1),
    ),
    "gpio.event.disable_returns": (Lines, "_mask", _never_returned),
    "d.gpio.irq_masked_init": (Lines, "changed", _latches(edges=False, levels=False)),
    "d.gpio.irq_valid": (Lines, "_mask", _invalid),
    "d.gpio.irq_unmask_first": (Lines, "unmask", _accepts),
    "d.gpio.irq_level_renotify": (Lines, "_deliver", _once),
    "d.gpio.eventq_exists": (GpioDevice, "queue_sizes", lambda was: property(lambda self: (64,))),
}
NO_NAMES = ("gpio.cfg.names0",)


def _scribbles(at: int, data: bytes) -> Make:
    """The device writes to the request that it may only read."""

    def make(was: Any) -> Any:
        def handle(self: I2cDevice, queue: Any) -> None:
            memory = self.memory  # type: ignore[attr-defined]
            start, length = 0x10_0000, 0x4_0000
            found = memory.read(start, length).rfind(b"what the guest has written") - 9
            memory.write(start + found + at, data)
            was(self, queue)

        return handle

    return make


def _keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    realize = I2cDevice.realize

    def kept(self: I2cDevice, resources: Any) -> None:
        self.memory = resources.memory  # type: ignore[attr-defined]
        realize(self, resources)

    monkeypatch.setattr(I2cDevice, "realize", kept)


def _last_first(was: Any) -> Any:
    def group(self: I2cDevice, queue: Any) -> Any:
        return [Request.parse(chain) for chain in list(queue.pop_batch())[::-1]]

    return group


def _alone(was: Any) -> Any:
    """Each request is a group of its own."""

    def group(self: I2cDevice, queue: Any) -> Any:
        self._failing = False
        return [Request.parse(chain) for chain in queue.pop_batch(1)]

    return group


def _never_fails(was: Any) -> Any:
    return lambda self, read: was(self, b"" if read is None else read)


I2C: dict[str, Fault] = {
    "i2c.no_change.addr": (I2cDevice, "handle_queue", _scribbles(0, b"\x42")),
    "i2c.no_change.flags": (I2cDevice, "handle_queue", _scribbles(6, b"\x42")),
    "i2c.no_change.wbuf": (I2cDevice, "handle_queue", _scribbles(12, b"\x42")),
    "i2c.read.fill": (Request, "finish", lambda was: lambda self, read: was(self, read and read[:-1] + b"\xee")),
    "i2c.order": (I2cDevice, "_next_group", _last_first),
    "i2c.fail.first": (Request, "finish", _never_fails),
    "d.i2c.group_fail": (I2cDevice, "_next_group", _alone),
    "d.i2c.zero_len": (Request, "finish", _never_fails),
}


@pytest.mark.parametrize(
    ("row", "world", "fault"),
    [
        *((row, world, fault) for row, (world, fault) in INPUT.items()),
        *((row, "gpio", fault) for row, fault in GPIO.items() if row not in NO_NAMES),
        *((row, "i2c", fault) for row, fault in I2C.items()),
    ],
    indirect=["world"],
)
def test_device_that_breaks_a_rule_fails_its_row(
    row: str, world: Any, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    if row.startswith("i2c.no_change"):
        _keeps_memory(monkeypatch)
    owner, name, make = fault
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))
    assert judged(world.build, row, outside=world, plugins=world.plugins).failures


@pytest.mark.parametrize("world", ["i2c"], indirect=True)
@pytest.mark.parametrize("row", ["i2c.feat.offer", "i2c.feat.reject"])
def test_adapter_without_zero_length_requests_fails_its_row(
    row: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product refuses such a device: that refusal is gone, too."""
    monkeypatch.setattr(features, "MANDATORY", {})
    if row == "i2c.feat.offer":
        monkeypatch.setattr(I2cDevice, "features", property(lambda self: 0))
    assert judged(world.build, row, outside=world, plugins=world.plugins).failures


def _claims_names(queue: Any) -> None:
    for chain in queue.pop_batch():
        chain.write(b"\1\0")
        queue.push(chain)


def test_controller_without_names_that_has_room_for_some_fails_its_row() -> None:
    paper = Paper(kind=41, queues=1, config={0: b"\4\0", 4: b"\x10"}, size=8, serve=_claims_names)
    assert judged(paper.build, "gpio.cfg.names0").failures


def test_direction_that_does_not_fit_and_another_address_fail_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    world = packages.Adapter()
    parse = acrn_dm_i2c.message._message

    def guessing(chain: Any, address: int, flags: int) -> Any:
        made = parse(chain, address, flags)
        return made or acrn_dm_i2c.message.Message(address=0x50, data=b"\0")

    monkeypatch.setattr(acrn_dm_i2c.message, "_message", guessing)
    assert judged(world.build, "d.i2c.dir_flag", outside=world, plugins=world.plugins).failures
    world.close()


@pytest.mark.parametrize(("row", "flag"), [("d.i2c.flags", 0), ("d.i2c.addr", 1)])
def test_adapter_that_takes_flags_or_addresses_for_others_fails_its_row(
    row: str, flag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = packages.Adapter()
    parse = acrn_dm_i2c.message._message

    def wrong(chain: Any, address: int, flags: int) -> Any:
        return parse(chain, address + 2 * flag, flags ^ (0 if flag else 3 if flags & 2 else 0))

    monkeypatch.setattr(acrn_dm_i2c.message, "_message", wrong)
    assert judged(world.build, row, outside=world, plugins=world.plugins).failures
    world.close()


def test_every_row_has_a_fault() -> None:
    apart = {"i2c.feat.offer", "i2c.feat.reject", "d.i2c.dir_flag", "d.i2c.flags", "d.i2c.addr"}
    assert set(rows_of("input", "gpio", "i2c")) == {*INPUT, *GPIO, *I2C} | apart
