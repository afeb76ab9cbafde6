"""Simulated lines under a driver, without a virtual machine."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_gpio
import pytest

from acrn_dm import ConfigError
from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

REQUESTS, EVENTS = 0, 1
F_IRQ = 1
NEEDS_RESET = 64
GET_NAMES, GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ = range(1, 7)
NONE, OUT, IN = 0, 1, 2
RISING, FALLING, BOTH, HIGH, LOW = 1, 2, 3, 4, 8
OK, ERROR = 0, 1
BUTTON, LED = 0, 1


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_gpio])


class Guest:
    """A machine whose driver has started, and the board around it."""

    def __init__(self, m: SimMachine, folder: Path, options: str = "line=button,line=led,count=4") -> None:
        self.machine, self.control = m, folder / "control"
        m.add("virtio-gpio", f"{options},control={self.control}", slot=3)
        self.driver: VirtioDriver = m.driver(3)
        self.driver.start()

    def ask(self, kind: int, line: int, value: int = 0) -> tuple[int, int]:
        done = self.driver.queue(REQUESTS).transfer([struct.pack("<HHI", kind, line, value)], [2])
        assert done.written == 2
        return done.data[0], done.data[1]

    def unmask(self, line: int) -> None:
        self.driver.queue(EVENTS).send([struct.pack("<H", line)], [1])
        self.driver.queue(EVENTS).kick()
        self.machine.settle()

    def events(self) -> list[int]:
        """Status of each pair of buffers that came back."""
        return [done.data[0] for done in self.driver.queue(EVENTS).completed()]

    def say(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.control))
            client.send(f"{line}\n".encode())
            self.machine.settle()
            return client.recv(1 << 16).decode().rstrip("\n")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with machine() as m:
        yield Guest(m, tmp_path)


@pytest.mark.stress
def test_device_conforms() -> None:
    kind = next(iter(acrn_dm_gpio.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(kind, "count=4,line=led", slot=3))


def test_configuration_counts_lines_and_bytes_of_names(guest: Guest) -> None:
    """gpio.cfg.all_fields, gpio.cfg.names_size, d.gpio.padding."""
    assert struct.unpack("<HHI", guest.driver.read_config(0, 8)) == (4, 0, len(b"button\0led\0\0\0"))


def test_names_are_a_block_of_strings(guest: Guest) -> None:
    """gpio.names.strings, d.gpio.names_block."""
    done = guest.driver.queue(REQUESTS).transfer([struct.pack("<HHI", GET_NAMES, 0, 0)], [1 + 13])
    assert done.data[: done.written] == b"\0button\0led\0\0\0"


def test_names_without_room_for_them_are_an_error(guest: Guest) -> None:
    assert guest.ask(GET_NAMES, 0) == (ERROR, 0)


def test_lines_without_names_have_no_block(tmp_path: Path) -> None:
    """gpio.cfg.names0."""
    with machine() as m:
        guest = Guest(m, tmp_path, "count=2")
        assert struct.unpack("<HHI", guest.driver.read_config(0, 8)) == (2, 0, 0)
        assert guest.ask(GET_NAMES, 0) == (ERROR, 0)


def test_direction_is_as_it_was_set(guest: Guest) -> None:
    """d.gpio.dir_get."""
    for direction in (NONE, OUT, IN, NONE):
        assert guest.ask(SET_DIRECTION, LED, direction) == (OK, 0)
        assert guest.ask(GET_DIRECTION, LED) == (OK, direction)


def test_output_is_seen_outside(guest: Guest) -> None:
    guest.ask(SET_DIRECTION, LED, OUT)
    guest.ask(SET_VALUE, LED, 1)
    assert (guest.say("get led"), guest.ask(GET_VALUE, LED)) == ("1", (OK, 1))


def test_value_that_was_set_before_is_there_when_the_line_becomes_an_output(guest: Guest) -> None:
    """d.gpio.set_value_latched."""
    guest.ask(SET_VALUE, LED, 1)
    assert guest.say("get led") == "0"
    guest.ask(SET_DIRECTION, LED, OUT)
    assert guest.say("get led") == "1"


def test_input_is_driven_from_outside(guest: Guest) -> None:
    guest.ask(SET_DIRECTION, BUTTON, IN)
    guest.say("set 0 1")
    assert guest.ask(GET_VALUE, BUTTON) == (OK, 1)


def test_line_that_is_given_up_forgets_everything(guest: Guest) -> None:
    """gpio.dir_none.discard."""
    guest.ask(SET_VALUE, BUTTON, 1)
    guest.ask(SET_DIRECTION, BUTTON, IN)
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.say("pulse button")
    guest.unmask(LED)  # not enabled: comes back
    guest.ask(SET_DIRECTION, BUTTON, NONE)
    guest.events()
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.unmask(BUTTON)
    assert guest.events() == []
    guest.ask(SET_IRQ, BUTTON, 0)
    guest.ask(SET_DIRECTION, BUTTON, OUT)
    assert guest.say("get button") == "0"


@pytest.mark.parametrize(
    ("kind", "line", "value"),
    [
        *[(kind, 4, 0) for kind in range(2, 7)],
        (GET_VALUE, 0xFFFF, 0),
        (SET_DIRECTION, LED, 3),
        (SET_VALUE, LED, 2),
        (SET_VALUE, LED, 0x1_0001),
        (SET_IRQ, LED, 5),
        (SET_IRQ, LED, 16),
        (0, LED, 0),
        (7, LED, 0),
        (0xFFFF, 0, 0),
    ],
)
def test_message_that_can_not_be_is_an_error(guest: Guest, kind: int, line: int, value: int) -> None:
    """d.gpio.status_err, gpio.resp.all_fields."""
    assert guest.ask(kind, line, value) == (ERROR, 0)


@pytest.mark.parametrize("data", [b"", b"\x04", bytes(7)])
def test_message_that_is_too_short_is_an_error(guest: Guest, data: bytes) -> None:
    done = guest.driver.queue(REQUESTS).transfer([data, b""] if data else [], [8])
    assert (done.written, done.data[:2]) == (2, bytes([ERROR, 0]))


def test_response_without_room_needs_a_reset(guest: Guest) -> None:
    guest.driver.queue(REQUESTS).send([struct.pack("<HHI", GET_VALUE, 0, 0)], [1])
    guest.driver.queue(REQUESTS).kick()
    guest.machine.settle()
    assert guest.driver.status & NEEDS_RESET


def test_messages_are_answered_in_their_order(guest: Guest) -> None:
    """gpio.order.same_line."""
    queue = guest.driver.queue(REQUESTS)
    guest.ask(SET_DIRECTION, LED, OUT)
    for at in range(12):
        queue.send([struct.pack("<HHI", SET_VALUE, LED, at % 2)], [2])
        queue.send([struct.pack("<HHI", GET_VALUE, LED, 0)], [2])
    queue.kick()
    guest.machine.settle()
    done = queue.completed()
    assert [it.token for it in done] == sorted(it.token for it in done)
    assert [it.data[1] for it in done[1::2]] == [0, 1] * 6


@pytest.mark.parametrize(
    ("irq", "levels", "expected"),
    [
        (RISING, "10", [1]),
        (RISING, "0", []),
        (FALLING, "1", []),
        (FALLING, "10", [1]),
        (BOTH, "1", [1]),
        (HIGH, "1", [1]),
        (LOW, "0", [1]),
    ],
)
def test_edge_or_level_interrupts(guest: Guest, irq: int, levels: str, expected: list[int]) -> None:
    """gpio.event.unmasked_enabled, d.gpio.irq_valid."""
    guest.ask(SET_DIRECTION, BUTTON, IN)
    guest.ask(SET_IRQ, BUTTON, irq)
    guest.unmask(BUTTON)
    for level in levels:
        guest.say(f"set button {level}")
    assert guest.events() == expected


def test_interrupt_masks_until_buffers_come_again(guest: Guest) -> None:
    """d.gpio.irq_masked_init."""
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.say("pulse button")
    assert guest.events() == []
    guest.unmask(BUTTON)
    assert guest.events() == [1]
    guest.say("pulse button")
    guest.say("pulse button")
    assert guest.events() == []
    guest.unmask(BUTTON)
    assert guest.events() == [1]
    guest.unmask(BUTTON)
    assert guest.events() == []


def test_level_that_went_by_while_masked_is_not_kept(guest: Guest) -> None:
    """gpio.irq.level_nolatch."""
    guest.ask(SET_IRQ, BUTTON, HIGH)
    guest.say("pulse button")
    guest.unmask(BUTTON)
    assert guest.events() == []


def test_level_that_is_still_there_interrupts_again(guest: Guest) -> None:
    """d.gpio.irq_level_renotify."""
    guest.ask(SET_IRQ, BUTTON, HIGH)
    guest.say("set button 1")
    for _ in range(3):
        guest.unmask(BUTTON)
        assert guest.events() == [1]


def test_disabling_returns_the_buffers_and_discards_the_edge(guest: Guest) -> None:
    """gpio.event.disable_returns, gpio.irq.disable_discard."""
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.unmask(BUTTON)
    guest.ask(SET_IRQ, BUTTON, 0)
    assert guest.events() == [0]
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.say("pulse button")
    guest.ask(SET_IRQ, BUTTON, 0)
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.unmask(BUTTON)
    assert guest.events() == []


@pytest.mark.parametrize("line", [BUTTON, 4, 0xFFFF])
def test_buffers_for_a_line_that_is_not_enabled_come_back(guest: Guest, line: int) -> None:
    """d.gpio.irq_unmask_first."""
    guest.unmask(line)
    assert guest.events() == [0]


def test_second_pair_of_buffers_for_a_line_comes_back(guest: Guest) -> None:
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.unmask(BUTTON)
    guest.unmask(BUTTON)
    assert guest.events() == [0]
    guest.say("pulse button")
    assert guest.events() == [1]


def test_output_does_not_interrupt(guest: Guest) -> None:
    guest.ask(SET_DIRECTION, LED, OUT)
    assert guest.ask(SET_IRQ, LED, RISING) == (ERROR, 0)
    guest.ask(SET_IRQ, BUTTON, RISING)
    assert guest.ask(SET_DIRECTION, BUTTON, OUT) == (ERROR, 0)


def test_interrupts_that_were_not_negotiated_are_refused(guest: Guest) -> None:
    guest.driver.start(0)
    assert guest.ask(SET_IRQ, BUTTON, RISING) == (ERROR, 0)
    guest.unmask(BUTTON)
    assert guest.events() == [0]


def test_interrupts_can_be_left_out(tmp_path: Path) -> None:
    """d.gpio.eventq_exists."""
    with machine() as m:
        driver = Guest(m, tmp_path, "count=4,irq=off").driver
        assert driver.registers.offered() & F_IRQ == 0
        assert driver.all_queues() == [REQUESTS]


def test_reset_gives_the_lines_back(guest: Guest) -> None:
    guest.ask(SET_DIRECTION, LED, OUT)
    guest.ask(SET_VALUE, LED, 1)
    guest.ask(SET_IRQ, BUTTON, RISING)
    guest.unmask(BUTTON)
    guest.say("set button 1")
    guest.driver.start()
    assert guest.say("list") == "0:button:none:1 1:led:none:0 2::none:0 3::none:0"
    guest.unmask(BUTTON)
    assert guest.events() == [0]


def test_line_that_the_guest_drives_is_not_driven_from_outside(guest: Guest) -> None:
    guest.ask(SET_DIRECTION, LED, OUT)
    assert guest.say("set led 1") == "error: the guest drives it"


@pytest.mark.parametrize(
    "line", ["set", "set led", "set led 2", "set x 1", "get 4", "pulse", "list all", "drive led 1"]
)
def test_line_that_says_nothing_sensible_is_refused(guest: Guest, line: str) -> None:
    assert guest.say(line).startswith("error: ")


def test_event_queue_has_room_for_every_line(tmp_path: Path) -> None:
    with machine() as m:
        driver = Guest(m, tmp_path, "count=100").driver
        assert driver.registers.queue_size(EVENTS) == 256


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "which lines"),
        ("count=0", "expected 1 to 1024"),
        ("count=1,line=a,line=b", "there are 2 names"),
        ("line=a,line=a", "two lines can't have one name"),
        ("line=ä", "printable ASCII"),
        ("chip=/dev/gpiochip0,script=/x", "script drives simulated lines"),
    ],
)
def test_options_that_can_not_be_are_named(text: str, error: str) -> None:
    with machine() as m, pytest.raises(ConfigError, match=error):
        m.add("virtio-gpio", text, slot=3)
