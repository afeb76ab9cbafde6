"""A console's configuration space, its queues, and checks before it runs. Test names hold ids of conformance rows."""

import struct
import threading
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_console import acrn_dm_device_types
from acrn_dm.testing import SimMachine
from tests.devices.virtio_console.console_rig import (
    DEVICE_ADD,
    EMERG_AT,
    EMERG_WRITE,
    MULTIPORT,
    PORT_READY,
    SIZE,
    Console,
    console,
)


def test_configuration_of_what_is_no_terminal(plain: Console) -> None:
    assert plain.driver.registers.offered() & 7 == SIZE | MULTIPORT | EMERG_WRITE
    assert struct.unpack("<HHII", plain.driver.read_config(0, 12)) == (80, 25, 1, 0)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("pty:a", 1),
        ("pty:a,pty:b", 2),
        ("pty:a,pty:b,max_ports=2", 2),
        ("pty:a,max_ports=5", 5),
        ("max_ports=16,pty:a", 16),
        (",".join(f"pty:p{i}" for i in range(16)), 16),
    ],
)
def test_there_are_queues_and_vectors_for_the_ports_and_no_more(text: str, ports: int) -> None:
    """5.3.2: two for port 0, two for control, two for each other port; a vector each and one for the configuration."""
    with console(text, start=False) as c:
        assert struct.unpack("<HHII", c.driver.read_config(0, 12))[2] == ports
        assert len(c.driver.all_queues()) == 2 + 2 * ports
        msix = c.machine.bus.functions[0].msix
        assert msix is not None
        assert msix.vectors == 3 + 2 * ports


def test_ports_that_are_only_room_are_not_announced_and_their_queues_are_nobodys() -> None:
    with console("pty:a,max_ports=3") as c:
        assert [m[:2] for m in c.bring_up(0) if m[1] == DEVICE_ADD] == [(0, DEVICE_ADD)]
        c.control(PORT_READY, 1)
        c.send(2, b"x")
        assert (c.sent(2), c.messages(), c.machine.failures) == (0, [], [])


@pytest.mark.parametrize("start", [False, True])
def test_console_emerg_wr_unconfigured_and_output(log: Path, start: bool) -> None:
    with console(f"file:con={log}", start=start, features=0) as c:
        c.driver.function  # noqa: B018 - the machine is real from here on
        c.driver.registers.write_config(EMERG_AT, 4, 0x1241)
    assert log.read_bytes() == b"A"


@pytest.mark.parametrize("at", range(8))
def test_other_configuration_is_read_only(plain: Console, log: Path, at: int) -> None:
    before = plain.driver.read_config(0, 12)
    plain.driver.registers.write_config(at, 1, 0x5A)
    assert plain.driver.read_config(0, 12) == before
    assert log.read_bytes() == b""


def test_resize_of_port_0_changes_the_configuration(plain: Console) -> None:
    before = plain.driver.config_interrupts
    plain.device.resize(0, 132, 43)
    plain.device.resize(0, 132, 43)
    plain.machine.settle()
    assert struct.unpack("<HH", plain.driver.read_config(0, 4)) == (132, 43)
    assert plain.driver.config_interrupts == before + 1


def test_d_cfg_generation_is_new_before_anything_of_a_resize_on_another_thread_shows(
    plain: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """d.cfg.generation: a driver that read the columns before and the rows after sees it by the generation."""
    changed, go_on, announce = threading.Event(), threading.Event(), plain.device.config_changed

    def announce_late() -> None:
        changed.set()
        assert go_on.wait(10)
        announce()

    monkeypatch.setattr(plain.device, "config_changed", announce_late)
    registers = plain.driver.registers
    before, columns = registers.read("config_generation"), registers.read_config(0, 2)
    other = threading.Thread(target=plain.device.resize, args=(0, 132, 43))
    other.start()
    assert changed.wait(10)
    rows, after = registers.read_config(2, 2), registers.read("config_generation")
    again = registers.read_config(0, 2), registers.read_config(2, 2), registers.read("config_generation")
    go_on.set()
    other.join()
    assert (columns, rows) == (80, 43)
    assert after != before
    assert again == (132, 43, after)


@pytest.mark.parametrize(
    ("text", "named"),
    [("tty:t=/dev/nosuchtty", "/dev/nosuchtty does not exist"), ("socket:s=/nosuch/s", "directory /nosuch does not")],
)
def test_check_names_what_is_missing(text: str, named: str) -> None:
    with SimMachine() as machine:
        (line,) = machine.add(acrn_dm_device_types()[0], text, slot=3).check()
    assert named in line
