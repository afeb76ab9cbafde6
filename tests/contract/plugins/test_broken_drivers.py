"""Drivers that are broken in every call: the guest gets an error or the machine does not start, with one line that
names the driver; a disk and a card beside it go on.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.base.errors import AcrnDmError
from acrn_dm.testing import SimMachine
from tests.devices.virtio_blk.blk_rig import FLUSH, IN, IOERR, OK, OUT, WRITE_ZEROES, header, segment
from tests.devices.virtio_blk.drivers.driver_rig import LateRam, Plugin, Ram
from tests.devices.virtio_net.drivers.driver_rig import Plugin as PacketPlugin
from tests.devices.virtio_net.drivers.driver_rig import Sink
from tests.devices.virtio_net.net_rig import frame

Broken = Callable[..., object]


def boom(*args: object, **more: object) -> Any:
    raise ZeroDivisionError("boom")


def broken(base: type, *calls: str, **attributes: object) -> Any:
    return type("Broken", (base,), {**dict.fromkeys(calls, boom), **attributes})


@contextmanager
def machine_beside(tmp_path: Path, plugin: object, device: str, text: str) -> Iterator[SimMachine]:
    """A machine with a disk that is right in slot 3, and the device in slot 4."""
    (tmp_path / "disk.img").write_bytes(bytes(64 * 512))
    with SimMachine(plugins=[plugin]) as machine:
        machine.add("virtio-blk", str(tmp_path / "disk.img"), slot=3)
        machine.add(device, text, slot=4)
        yield machine


def request(machine: SimMachine, slot: int, kind: int, data: bytes = b"", room: int = 0) -> int:
    driver = machine.driver(slot)
    driver.start()
    return driver.queue(0).transfer([header(kind) + data], [room + 1]).data[-1]


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        ("read", (IN, b"", 512)),
        ("write", (OUT, bytes(512), 0)),
        ("flush", (FLUSH, b"", 0)),
        ("write_zeroes", (WRITE_ZEROES, segment(0, 1), 0)),
    ],
)
def test_request_that_a_driver_breaks_on_is_ioerr_and_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, asked: tuple[int, bytes, int]
) -> None:
    plugin = Plugin(broken(Ram, call))
    with machine_beside(tmp_path, plugin, "virtio-blk", "driver=ram,cache=writeback") as machine:
        assert [request(machine, 4, *asked) for _ in range(3)] == [IOERR] * 3
        assert request(machine, 3, IN, room=512) == OK
        assert machine.failures == []
        lines = [record.getMessage() for record in caplog.records if "an earlier flush" not in record.getMessage()]
    (line,) = lines
    assert "virtio-blk-4:0: driver ram (plugin" in line
    assert "ZeroDivisionError: boom" in line


def test_driver_that_breaks_when_it_is_closed_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with machine_beside(tmp_path, Plugin(broken(Ram, "close")), "virtio-blk", "driver=ram") as machine:
        assert request(machine, 4, IN, room=512) == OK
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "driver ram (plugin" in line
    assert "closing: ZeroDivisionError: boom" in line


def test_driver_that_never_ends_a_request_holds_up_its_own_disk_only(tmp_path: Path) -> None:
    with machine_beside(tmp_path, Plugin(LateRam), "virtio-blk", "driver=ram") as machine:
        slow, right = machine.driver(4), machine.driver(3)
        slow.start()
        right.start()
        slow.queue(0).send([header(IN)], [513])
        slow.queue(0).kick()
        right.queue(0).send([header(IN)], [513])
        right.queue(0).kick()
        done: list[object] = []
        while not done:
            machine.io_loop("io").step(0.01)
            done += right.queue(0).completed()
        assert slow.queue(0).completed() == []
        slow.reset()


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (broken(Ram, "__init__"), "ZeroDivisionError: boom"),
        (broken(Ram, "open"), "ZeroDivisionError: boom"),
        (broken(Ram, open=lambda self: errno.nothing), "AttributeError"),
        (broken(Ram, open=lambda self: setattr(self, "size", 0)), "size is 0, not"),
        (broken(Ram, open=lambda self: setattr(self, "size", 513)), "size is 513, not"),
        (broken(Ram, open=lambda self: setattr(self, "size", "1M")), "size is '1M', not"),
        (broken(Ram, open=lambda self: setattr(self, "size", 1 << 80)), "not a number of bytes"),
        (broken(Ram, logical=500), "logical is 500, not a power of two"),
        (broken(Ram, physical=None), "physical is None, not a power of two"),
        (lambda options, context: object(), "made a object, which is no BlockDriver"),
    ],
)
def test_disk_that_a_driver_can_t_give_is_refused_with_its_name(tmp_path: Path, driver: Broken, said: str) -> None:
    beside = machine_beside(tmp_path, Plugin(driver), "virtio-blk", "driver=ram")
    with pytest.raises(AcrnDmError) as refused, beside as machine:
        machine.start()
    assert said in str(refused.value)
    assert "driver ram" in str(refused.value)


@pytest.mark.parametrize("call", ["check", "claims"])
def test_question_that_a_driver_breaks_on_is_refused_with_its_name(tmp_path: Path, call: str) -> None:
    with machine_beside(tmp_path, Plugin(broken(Ram, call)), "virtio-blk", "driver=ram") as machine:
        device = machine.bus.functions[-1].device  # type: ignore[attr-defined]
        with pytest.raises(AcrnDmError, match=r"driver ram .*ZeroDivisionError: boom"):
            getattr(device, call)()


@pytest.mark.parametrize("base", [Ram, Sink])
def test_command_that_a_driver_breaks_on_is_an_error_for_who_gave_it(tmp_path: Path, base: type) -> None:
    block = base is Ram
    plugin: object = Plugin(broken(Ram, "control")) if block else PacketPlugin(broken(Sink, "control"))
    text = "driver=ram" if block else "driver=sink"
    beside = machine_beside(tmp_path, plugin, "virtio-blk" if block else "virtio-net", text)
    with beside as machine, pytest.raises(AcrnDmError, match=r"ZeroDivisionError: boom"):
        machine.command_driver(4, "do")


@pytest.mark.parametrize("call", ["send", "close"])
def test_card_whose_driver_breaks_costs_a_line_and_no_other_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    with machine_beside(tmp_path, PacketPlugin(broken(Sink, call)), "virtio-net", "driver=sink") as machine:
        card = machine.driver(4)
        card.start()
        card.queue(1).transfer([bytes(12) + frame()])
        assert request(machine, 3, IN, room=512) == OK
    lines = [r.getMessage() for r in caplog.records if "ZeroDivisionError: boom" in r.getMessage()]
    assert len(lines) <= 1 if call == "send" else len(lines) == 1
    assert all("virtio-net-4:0: driver sink (plugin" in line for line in lines)


def test_card_whose_driver_breaks_on_the_negotiation_asks_its_guest_for_a_reset(tmp_path: Path) -> None:
    plugin = PacketPlugin(broken(Sink, "configure", offloads=1))
    with machine_beside(tmp_path, plugin, "virtio-net", "driver=sink") as machine:
        machine.driver(4).start()
        ((_, error),) = machine.failures
        assert "configure: ZeroDivisionError: boom" in str(error)
        assert request(machine, 3, IN, room=512) == OK


@pytest.mark.parametrize("base", [Ram, Sink])
def test_driver_that_could_not_be_opened_is_closed(tmp_path: Path, base: type) -> None:
    closed: list[object] = []

    def close(self: object) -> None:
        closed.append(self)

    driver = broken(base, "open", close=close)
    block = base is Ram
    plugin: object = Plugin(driver) if block else PacketPlugin(driver)
    text = "driver=ram" if block else "driver=sink"
    beside = machine_beside(tmp_path, plugin, "virtio-blk" if block else "virtio-net", text)
    with pytest.raises(AcrnDmError, match="ZeroDivisionError: boom"), beside as machine:
        machine.start()
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("engine", "said"),
    [(boom, "ZeroDivisionError: boom"), (lambda self, depth: None, "engine made NoneType, which is no BlkEngine")],
)
def test_engine_that_a_driver_has_not_costs_its_own_disk_a_reset(tmp_path: Path, engine: object, said: str) -> None:
    with machine_beside(tmp_path, Plugin(broken(Ram, engine=engine)), "virtio-blk", "driver=ram") as machine:
        machine.driver(4).start()
        ((_, error),) = machine.failures
        assert said in str(error)
        assert "driver ram (plugin" in str(error)
        assert request(machine, 3, IN, room=512) == OK
