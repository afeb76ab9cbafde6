"""Played keyboards, mice and tablets under a driver, without a virtual machine."""

import itertools
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_input
import pytest
from acrn_dm_input.played import described

from acrn_dm import ConfigError
from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

EVENTS, STATUS = 0, 1
NEEDS_RESET = 64
KEY, REL, ABS, LED = 1, 2, 3, 0x11
A, B, C, KEY_H, KEY_I, LEFTSHIFT, LEFTCTRL = 30, 48, 46, 35, 23, 42, 29
SYN = (0, 0, 0)


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_input])


class Guest:
    """A machine with one played device whose driver has started, and the lines it is sent."""

    def __init__(self, m: SimMachine, control: Path, options: str = "") -> None:
        self.machine, self.control = m, control
        self.function = m.add("virtio-input", f"control={control},{options}", slot=3)
        self.driver = m.driver(3)

    def start(self, buffers: int = 64) -> None:
        self.driver.start()
        self.give(buffers)

    def give(self, buffers: int, size: int = 8) -> None:
        for _ in range(buffers):
            self.driver.queue(EVENTS).send([], [size])
        self.driver.queue(EVENTS).kick()
        self.machine.settle()

    def say(self, *lines: str) -> list[str]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.control))
            client.send("".join(f"{line}\n" for line in lines).encode())
            self.machine.settle()
            return client.recv(1 << 16).decode().splitlines()

    def events(self) -> list[tuple[int, int, int]]:
        done = self.driver.queue(EVENTS).completed()
        assert all(completion.written == 8 for completion in done)
        return [struct.unpack("<HHi", completion.data[:8]) for completion in done]


@pytest.fixture(params=["keyboard"])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guest]:
    with machine() as m:
        it = Guest(m, tmp_path / "control", f"kind={request.param}")
        it.start()
        yield it


def of_kind(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("guest", [kind], indirect=True)


def select(driver: VirtioDriver, select: int, subsel: int = 0) -> bytes:
    driver.registers.write_config(0, 1, select)
    driver.registers.write_config(1, 1, subsel)
    size = driver.registers.read_config(2, 1)
    return driver.read_config(8, size)


@pytest.mark.stress
def test_device_conforms() -> None:
    device = next(iter(acrn_dm_input.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(device, "kind=tablet", slot=3))


def test_key_is_pressed_and_released_in_updates_of_their_own(guest: Guest) -> None:
    assert guest.say("key a") == ["ok"]
    assert guest.events() == [(KEY, A, 1), SYN, (KEY, A, 0), SYN]


def test_chord_is_released_in_reverse_order(guest: Guest) -> None:
    guest.say("key leftctrl+c")
    assert guest.events()[::2] == [(KEY, LEFTCTRL, 1), (KEY, C, 1), (KEY, C, 0), (KEY, LEFTCTRL, 0)]


def test_text_is_typed_with_shift_where_it_takes_one(guest: Guest) -> None:
    guest.say("type Hi")
    expected = [(LEFTSHIFT, 1), (KEY_H, 1), (KEY_H, 0), (LEFTSHIFT, 0), (KEY_I, 1), (KEY_I, 0)]
    assert guest.events()[::2] == [(KEY, code, value) for code, value in expected]


def test_text_with_a_letter_that_no_key_has_is_refused_whole(guest: Guest) -> None:
    assert guest.say("type aé") == ["error: a US keyboard has no key for 'é'"]
    assert guest.events() == []


def test_key_is_held_until_it_is_released(guest: Guest) -> None:
    guest.say("press a", "release a")
    assert guest.events() == [(KEY, A, 1), SYN, (KEY, A, 0), SYN]


@of_kind("mouse")
def test_move_is_one_update_of_both_axes(guest: Guest) -> None:
    guest.say("move 10 -3", "move 0 5")
    assert guest.events() == [(REL, 0, 10), (REL, 1, -3), SYN, (REL, 1, 5), SYN]


@of_kind("mouse")
def test_click_and_wheel(guest: Guest) -> None:
    guest.say("click right", "wheel -1")
    assert guest.events() == [(KEY, 0x111, 1), SYN, (KEY, 0x111, 0), SYN, (REL, 8, -1), SYN]


@of_kind("tablet")
def test_place_is_one_update(guest: Guest) -> None:
    guest.say("abs 100 200", "click left")
    assert guest.events()[:3] == [(ABS, 0, 100), (ABS, 1, 200), SYN]


@pytest.mark.parametrize(
    ("guest", "line"),
    [
        ("keyboard", "key nosuch"),
        ("keyboard", "key"),
        ("keyboard", "move 1 1"),
        ("mouse", "move 1"),
        ("mouse", "move 1 99999"),
        ("mouse", "key a"),
        ("tablet", "abs -1 0"),
        ("tablet", "abs 0 32768"),
        ("tablet", "click a"),
    ],
    indirect=["guest"],
)
def test_line_that_says_nothing_sensible_is_refused(guest: Guest, line: str) -> None:
    (answer,) = guest.say(line)
    assert answer.startswith("error: ")
    assert guest.events() == []


def test_partial_update_is_never_seen(guest: Guest) -> None:
    """input.drop.not_partial, input.drop.whole: 63 buffers are an odd number, an update takes two."""
    guest.say("type " + "a" * 16)
    assert len(guest.events()) == 64
    guest.give(3)
    guest.say("key b")
    assert guest.events() == [(KEY, B, 1), SYN]
    guest.give(1)
    assert guest.events() == [(KEY, B, 0), SYN]


def test_updates_wait_for_buffers_in_their_order(guest: Guest) -> None:
    guest.say("type " + "a" * 16, "key b", "key c")
    guest.events()
    guest.give(8)
    assert [event[1] for event in guest.events()[::2]] == [B, B, C, C]


def test_line_that_the_guest_has_no_room_for_is_refused_whole(guest: Guest) -> None:
    """Half of a press would be a key that is held for ever."""
    answers = guest.say("type " + "a" * 16, *["type " + "b" * 100] * 3)
    assert answers[:3] == ["ok", "ok", "ok"]
    assert answers[3].startswith("error: the guest has room for 224 events")
    guest.events()
    seen = []
    for _ in range(13):
        guest.give(64 - guest.driver.queue(EVENTS).in_flight)
        seen += guest.events()
    assert [value for kind, _, value in seen if kind == KEY] == [1, 0] * 200


def test_update_that_a_short_queue_never_has_room_for_is_dropped_whole(tmp_path: Path) -> None:
    with machine() as m:
        guest = Guest(m, tmp_path / "control", "kind=tablet")
        guest.driver.negotiate()
        guest.driver.setup_queue(EVENTS, size=2)
        guest.driver.driver_ok()
        guest.give(2)
        assert guest.say("abs 1 1", "press left", "stat") == [
            "error: the guest does not take it",
            "ok",
            "sent=1 dropped=1",
        ]
        assert guest.events() == [(KEY, 0x110, 1), SYN]


def test_line_before_the_driver_is_there_says_so(tmp_path: Path) -> None:
    with machine() as m:
        guest = Guest(m, tmp_path / "control")
        assert guest.say("key a") == ["error: the guest's driver has not started yet"]


def test_script_is_played_once_when_the_driver_is_there(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("key a\n")
    with machine() as m:
        guest = Guest(m, tmp_path / "control", f"script={tmp_path / 'script'}")
        guest.start()
        assert len(guest.events()) == 4
        guest.start()
        assert guest.events() == []


def test_reset_forgets_what_waited(guest: Guest) -> None:
    guest.say("type " + "a" * 17)
    guest.driver.reset()
    guest.start()
    assert guest.events() == []


def test_buffer_that_is_too_small_needs_a_reset(guest: Guest) -> None:
    guest.driver.start()
    guest.give(2, size=7)
    guest.say("press a")
    assert guest.driver.status & NEEDS_RESET
    guest.start()
    guest.say("press a")
    assert guest.events() == [(KEY, A, 1), SYN]


def test_led_is_shown_in_the_file_and_by_leds(tmp_path: Path) -> None:
    with machine() as m:
        guest = Guest(m, tmp_path / "control", f"leds={tmp_path / 'leds'}")
        guest.start()
        guest.driver.queue(STATUS).transfer([struct.pack("<HHI", LED, 1, 1)])
        text = "numlock=0 capslock=1 scrolllock=0 compose=0 kana=0"
        assert guest.say("leds") == [text]
        assert (tmp_path / "leds").read_text() == f"{text}\n"


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(64), struct.pack("<HHI", LED, 0xFFFF, 1), b"\xff" * 8])
def test_status_that_means_nothing_comes_back(guest: Guest, data: bytes) -> None:
    assert guest.driver.queue(STATUS).transfer([data, b"x"]).written == 0
    assert guest.say("leds")[0].count("=0") == 5


def test_configuration_says_what_a_tablet_is(tmp_path: Path) -> None:
    """d.inp.string, d.inp.devids, d.inp.evbits, d.inp.absinfo."""
    with machine() as m:
        driver = Guest(m, tmp_path / "control", "kind=tablet,name=Pen,serial=7").driver
        assert (select(driver, 1), select(driver, 2)) == (b"Pen", b"7")
        assert struct.unpack("<4H", select(driver, 3)) == (6, 0x1AF4, 3, 1)
        assert select(driver, 0x10) == b"\x01"
        assert select(driver, 0x11, ABS) == b"\x03"
        assert struct.unpack("<5i", select(driver, 0x12, 1)) == (0, 32767, 0, 0, 0)


def test_size_is_0_wherever_there_is_nothing() -> None:
    """input.cfg.size0."""
    description = described(acrn_dm_input.InputConfig())
    found = {at for at in itertools.product(range(256), repeat=2) if description.value(*at)}
    assert found == {(1, 0), (3, 0), (0x11, KEY), (0x11, LED), (0x11, 0x14)}


def test_every_key_that_is_sent_has_its_bit(guest: Guest) -> None:
    bits = int.from_bytes(select(guest.driver, 0x11, KEY), "little")
    guest.say("type aZ09~?")
    assert all(bits >> code & 1 for kind, code, _ in guest.events() if kind == KEY)


def test_selection_ends_with_the_driver(guest: Guest) -> None:
    assert select(guest.driver, 1)
    guest.driver.reset()
    assert guest.driver.read_config(0, 3) == bytes(3)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("evdev=/dev/input/event1,script=/x", "script is for a device that is played"),
        ("kind=trackball", "keyboard, mouse, tablet"),
        (f"name={'x' * 129}", "at most 128 bytes"),
        ("evdv=/x", "did you mean 'evdev'"),
    ],
)
def test_options_that_can_not_be_are_named(text: str, error: str) -> None:
    with machine() as m, pytest.raises(ConfigError, match=error):
        m.add("virtio-input", text, slot=3)


@pytest.mark.parametrize("text", ["/dev/input/event7,SER,grab=off", "evdev=/dev/input/event7,serial=SER,grab=off"])
def test_original_grammar_says_the_same_as_options(text: str) -> None:
    config = acrn_dm_input.InputConfig.from_string(text)
    assert (str(config.evdev), config.serial, config.grab) == ("/dev/input/event7", "SER", False)
