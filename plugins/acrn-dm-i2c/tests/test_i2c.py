"""The adapter with simulated devices under a driver, without a virtual machine."""

import socket
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_i2c
import pytest
from acrn_dm_i2c import Slave
from acrn_dm_i2c.message import decode_address

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine, VirtioDriver, assert_device_conforms

FAIL_NEXT, READ = 1, 2
OK, ERROR = 0, 1
EEPROM, LM75, NOBODY = 0x50, 0x48, 0x11
NEEDS_RESET = 64


def machine() -> SimMachine:
    return SimMachine(plugins=[acrn_dm_i2c])


class Guest:
    """A machine whose driver has started."""

    def __init__(self, m: SimMachine, folder: Path, options: str = "device=24c02@0x50,device=lm75@0x48=21.5") -> None:
        self.machine, self.control = m, folder / "control"
        function = m.add("virtio-i2c", f"{options},control={self.control}", slot=3)
        self.bus = function.device.bus  # type: ignore[attr-defined]
        self.driver: VirtioDriver = m.driver(3)
        self.driver.start()

    def group(self, *messages: tuple[int, bytes | int], flags: int = 0) -> list[tuple[int, bytes]]:
        """Write bytes or read so many from an address, as one group; returns status and data of each."""
        queue = self.driver.queue(0)
        for at, (address, what) in enumerate(messages):
            more = FAIL_NEXT if at + 1 < len(messages) else flags
            header = struct.pack("<HHI", address << 1, 0, more | (READ if isinstance(what, int) else 0))
            if isinstance(what, int):
                queue.send([header], [what, 1] if what else [1])
            else:
                queue.send([header, what] if what else [header], [1])
        queue.kick()
        self.machine.settle()
        done = queue.completed()
        assert [it.token for it in done] == sorted(it.token for it in done)
        assert all(it.written == len(it.data) for it in done)
        return [(it.data[-1], it.data[:-1]) for it in done]

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
    kind = next(iter(acrn_dm_i2c.acrn_dm_device_types()))
    assert_device_conforms(lambda machine: machine.add(kind, "device=24c02@0x50", slot=3))


def test_driver_without_the_mandatory_feature_is_refused(guest: Guest) -> None:
    """i2c.feat.offer, i2c.feat.reject."""
    assert guest.driver.registers.offered() & 1
    assert guest.driver.negotiate(0) == 0


def test_what_was_written_is_read(guest: Guest) -> None:
    """i2c.read.fill."""
    assert guest.group((EEPROM, b"\x10hello")) == [(OK, b"")]
    assert guest.group((EEPROM, b"\x10"), (EEPROM, 5)) == [(OK, b""), (OK, b"hello")]


def test_pages_of_the_eeprom_wrap_as_the_chip_s_do(guest: Guest) -> None:
    guest.group((EEPROM, b"\x06abcd"))
    assert guest.group((EEPROM, b"\x00"), (EEPROM, 9))[1][1] == b"cd\xff\xff\xff\xff\x61\x62\xff"


def test_reading_goes_on_at_the_start(guest: Guest) -> None:
    guest.group((EEPROM, b"\x00x"))
    assert guest.group((EEPROM, b"\xff"), (EEPROM, 2))[1][1] == b"\xffx"


def test_write_takes_effect_at_the_stop(guest: Guest) -> None:
    """A repeated start is none, and a write that never ended burnt nothing."""
    first = guest.group((EEPROM, b"\x00x"), (EEPROM, b"\x00"), (EEPROM, 1))
    assert first[2] == (OK, b"\xff")


def test_content_is_kept_in_the_file(tmp_path: Path) -> None:
    for expected in (b"\xff", b"x"):
        with machine() as m:
            guest = Guest(m, tmp_path, f"device=24c02@0x50={tmp_path / 'eeprom'}")
            assert guest.group((EEPROM, b"\x80"), (EEPROM, 1))[1] == (OK, expected)
            guest.group((EEPROM, b"\x80x"))
    assert len((tmp_path / "eeprom").read_bytes()) == 256


def test_file_that_can_not_be_kept_is_named(tmp_path: Path) -> None:
    with machine() as m, pytest.raises(HostError, match="nosuch"):
        Guest(m, tmp_path, f"device=24c02@0x50={tmp_path}/nosuch/eeprom")


@pytest.mark.parametrize(
    ("degrees", "register"), [("25", b"\x19\x00"), ("-0.5", b"\xff\x80"), ("31.5", b"\x1f\x80"), ("-55", b"\xc9\x00")]
)
def test_temperature_is_in_half_degrees(guest: Guest, degrees: str, register: bytes) -> None:
    assert guest.say(f"0x48 temperature {degrees}") == "ok"
    assert guest.group((LM75, b"\x00"), (LM75, 2))[1] == (OK, register)


def test_limit_of_the_thermometer_can_be_set_and_its_temperature_not(guest: Guest) -> None:
    assert guest.group((LM75, b"\x03\x2d\x00")) == [(OK, b"")]
    assert guest.group((LM75, b"\x03"), (LM75, 2))[1] == (OK, b"\x2d\x00")
    assert guest.group((LM75, b"\x00\x01\x00")) == [(ERROR, b"")]
    assert guest.say("0x48 temperature") == "21.5"


@pytest.mark.parametrize("what", [b"", 0])
def test_quick_command_finds_who_is_there(guest: Guest, what: bytes | int) -> None:
    """d.i2c.zero_len, i2c.hw_behaviour."""
    assert [guest.group((address, what)) for address in (EEPROM, NOBODY)] == [[(OK, b"")], [(ERROR, b"")]]


def test_group_ends_with_the_one_that_fails(guest: Guest) -> None:
    """i2c.fail.first, d.i2c.group_fail: those before it are done, those behind it are not tried."""
    group = [(EEPROM, b"\x00a"), (NOBODY, b"x"), (EEPROM, b"\x01b"), (EEPROM, 1)]
    assert [status for status, _ in guest.group(*group)] == [OK, ERROR, ERROR, ERROR]
    assert guest.group((EEPROM, b"\x00"), (EEPROM, 2))[1][1] == b"a\xff"


def test_group_that_comes_in_parts_ends_as_well(guest: Guest) -> None:
    assert guest.group((NOBODY, b"x"), flags=FAIL_NEXT) == [(ERROR, b"")]
    assert guest.group((EEPROM, b"\x00a"), flags=FAIL_NEXT) == [(ERROR, b"")]
    assert guest.group((EEPROM, b"\x00a")) == [(ERROR, b"")]
    assert guest.group((EEPROM, b"\x00a")) == [(OK, b"")]


def test_group_that_fails_ends_with_the_driver(guest: Guest) -> None:
    guest.group((NOBODY, b"x"), flags=FAIL_NEXT)
    guest.driver.start()
    assert guest.group((EEPROM, b"")) == [(OK, b"")]


def test_more_groups_than_one_turn_takes_are_all_carried_out(guest: Guest) -> None:
    queue = guest.driver.queue(0)
    for at in range(30):
        queue.send([struct.pack("<HHI", EEPROM << 1, 0, 0), bytes([at, at])], [1])
    queue.kick()
    guest.machine.settle()
    assert [done.data for done in queue.completed()] == [b"\0"] * 30
    assert guest.group((EEPROM, b"\x00"), (EEPROM, 30))[1][1] == bytes(range(30))


@pytest.mark.parametrize(
    ("out", "in_"),
    [
        ([struct.pack("<HHI", EEPROM << 1, 0, READ), b"x"], [4, 1]),
        ([struct.pack("<HHI", EEPROM << 1, 0, READ), b"x"], [1]),
        ([struct.pack("<HHI", EEPROM << 1, 0, 0), b"\x00x"], [4, 1]),
        ([struct.pack("<HHI", EEPROM << 1 | 1, 0, 0)], [1]),
        ([struct.pack("<HHI", 0x1_00 | EEPROM << 1, 0, 0)], [1]),
        ([struct.pack("<HHI", EEPROM << 1, 0, READ)], [8193, 1]),
        ([struct.pack("<HHI", EEPROM << 1, 0, 0), bytes(8193)], [1]),
        ([b"1234567"], [1]),
        ([b"1"], [300_000]),
    ],
)
def test_request_that_can_not_be_fails_and_touches_nothing(guest: Guest, out: list[bytes], in_: list[int]) -> None:
    """d.i2c.dir_flag, i2c.no_change.*: the status is the last byte."""
    before = guest.say("0x50 dump")
    queue = guest.driver.queue(0)
    queue.send(out, in_)
    queue.kick()
    guest.machine.settle()
    (done,) = queue.completed()
    assert done.data[-1] == ERROR
    assert done.data[: done.written].rstrip(b"\x01").strip(b"\0") == b""
    assert guest.say("0x50 dump") == before


def test_request_without_room_for_a_status_needs_a_reset(guest: Guest) -> None:
    guest.driver.queue(0).send([bytes(8)], [])
    guest.driver.queue(0).kick()
    guest.machine.settle()
    assert guest.driver.status & NEEDS_RESET


def test_addresses_have_7_or_10_bits() -> None:
    """d.i2c.addr."""
    assert decode_address(0x50 << 1) == (0x50, False)
    assert decode_address(0x5A << 8 | 0xF0 | 0b10 << 1) == (0x25A, True)
    assert [decode_address(it) for it in (0xA1, 0x1A0, 0xFFFF)] == [None] * 3


class Counter(Slave):
    """A device of an author's: counts reads, and hears no writes."""

    def __init__(self, text: str) -> None:
        self.value = int(text or 0)
        self.stops = 0

    def read(self) -> int:
        self.value += 1
        return self.value

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mine")
    module.Counter, module.Other = Counter, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)


@pytest.mark.usefixtures("mine")
def test_class_of_an_author_s_answers(tmp_path: Path) -> None:
    with machine() as m:
        guest = Guest(m, tmp_path, "device=mine.Counter@0x20=7")
        assert guest.group((0x20, 2), (0x20, 1)) == [(OK, b"\x08\x09"), (OK, b"\x0a")]
        assert guest.bus.slaves[0x20].stops == 1
        assert guest.group((0x20, b"x")) == [(ERROR, b"")]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("device=24c02", "expected KIND@ADDRESS"),
        ("device=24c02@0x400", "an address is 0 to 0x7f"),
        ("device=24c02@x", "an address is"),
        ("device=24c02@0x50,device=lm75@80", "two of them at 0x50"),
        ("device=lm76@0x50", "known: 24c02, lm75"),
        ("device=lm75@0x50=200", "expected -55 to 125"),
        ("device=lm75@0x50=warm", "warm"),
        ("device=no.such@0x50", "No module named"),
        ("device=mine.Nothing@0x50", "Nothing"),
        ("device=mine.Other@0x50", "no subclass"),
        ("bus=/dev/i2c-1", "Give allow=ADDRESS"),
        ("bus=/dev/i2c-1,allow=0x50,device=lm75@0x48", "device is for a simulated bus"),
        ("allow=0x50", "allow is for a bus of the host"),
        ("bus=/dev/i2c-1,allow=0x400", "an address is"),
    ],
)
def test_options_that_can_not_be_are_named(text: str, error: str) -> None:
    with machine() as m, pytest.raises(ConfigError, match=error):
        m.add("virtio-i2c", text, slot=3)


@pytest.mark.parametrize(
    "line", ["0x50", "0x50 burn", "0x48 temperature hot", "0x48 temperature 126", "0x11 dump", "x dump", "0x48"]
)
def test_line_that_says_nothing_sensible_is_refused(guest: Guest, line: str) -> None:
    assert guest.say(line).startswith("error: ")


def test_empty_bus_answers_nobody(tmp_path: Path) -> None:
    with machine() as m:
        assert Guest(m, tmp_path, "").group((EEPROM, b"")) == [(ERROR, b"")]
