"""Lines of a host's chip, with the kernel's side played: requests answered, edges through a socket."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_gpio
import pytest
from acrn_dm_gpio import chip
from acrn_dm_gpio.chip import Chip

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine

GET_NAMES, GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ = range(1, 7)
NONE, OUT, IN, BOTH = 0, 1, 2, 3


class Kernel:
    """A chip of four lines, of which somebody uses the last."""

    names = ("reset", "led", "", "busy")

    def __init__(self) -> None:
        self.levels = [0, 0, 1, 0]
        self.requested: dict[int, tuple[int, socket.socket]] = {}  # our descriptor: offset, the kernel's end
        self.flags: dict[int, int] = {}

    def ioctl(self, fd: int, request: int, data: bytes) -> bytes:
        if request == chip.GET_CHIP_INFO:
            return chip.CHIP_INFO.pack(b"gpiochip0", b"test", len(self.names))
        if request == chip.GET_LINE_INFO:
            (offset,) = struct.unpack_from("I", data, 64)
            flags = chip.USED if offset == 3 else 0
            return chip.LINE_INFO.pack(self.names[offset].encode(), b"", offset, 0, flags, b"", 0, 0, 0, 0)
        if request == chip.GET_LINE:
            return self._request(data)
        offset, _ = self.requested[fd]
        if request == chip.SET_CONFIG:
            self._configure(offset, data)
        elif request == chip.GET_VALUES:
            return chip.VALUES.pack(self.levels[offset], 1)
        elif request == chip.SET_VALUES:
            self.levels[offset] = chip.VALUES.unpack(data)[0]
        return data

    def _request(self, data: bytes) -> bytes:
        offset, consumer = struct.unpack_from("I", data)[0], data[256:263]
        assert consumer == b"acrn-dm"
        if offset in [it for it, _ in self.requested.values()]:
            raise OSError(errno.EBUSY, "busy")
        ours, theirs = socket.socketpair()
        self._configure(offset, data[288:560])
        fd = ours.detach()
        self.requested[fd] = offset, theirs
        return data[:-4] + struct.pack("i", fd)

    def _configure(self, offset: int, config: bytes) -> None:
        flags, attributes = struct.unpack_from("QI", config)
        self.flags[offset] = flags
        if attributes:
            kind, _, value, mask = struct.unpack_from("IIQQ", config, 32)
            assert (kind, mask, bool(flags & chip.OUTPUT)) == (2, 1, True)
            self.levels[offset] = value

    def edge(self, offset: int, level: int) -> None:
        self.levels[offset] = level
        for at, end in self.requested.values():
            if at == offset:
                end.send(chip.EVENT.pack(1, 1 if level else 2, offset, 1, 1, *[0] * 6))


class Rig:
    """A machine with lines of such a chip."""

    def __init__(self, m: SimMachine, path: Path, options: str = "") -> None:
        self.machine, self.kernel = m, Kernel()
        path.touch()
        function = m.add("virtio-gpio", f"chip={path},{options}", slot=3)
        bank = function.device.bank  # type: ignore[attr-defined]
        assert isinstance(bank, Chip)
        bank.ioctl = self.kernel.ioctl
        self.driver = m.driver(3)
        self.driver.start()

    def ask(self, kind: int, line: int, value: int = 0) -> tuple[int, int]:
        data = self.driver.queue(0).transfer([struct.pack("<HHI", kind, line, value)], [2]).data
        return data[0], data[1]

    def open_lines(self) -> set[int]:
        """Offsets that are requested still."""
        return {offset for fd, (offset, _) in self.kernel.requested.items() if _is_open(fd)}

    def close(self) -> None:
        for _, end in self.kernel.requested.values():
            end.close()


def _is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with SimMachine(plugins=[acrn_dm_gpio]) as m:
        it = Rig(m, tmp_path / "gpiochip0", "line=led=light,line=0")
        yield it
    it.close()


def test_structures_are_as_long_as_the_kernel_s() -> None:
    assert (chip.CHIP_INFO.size, chip.LINE_INFO.size, chip.CONFIG.size) == (68, 256, 272)
    assert (chip.REQUEST.size, chip.VALUES.size, chip.EVENT.size) == (592, 16, 48)
    assert (chip.GET_LINE, chip.GET_LINE_INFO, chip.GET_CHIP_INFO) == (0xC250B407, 0xC100B405, 0x8044B401)


def test_lines_have_the_names_of_options_or_chip(rig: Rig) -> None:
    done = rig.driver.queue(0).transfer([struct.pack("<HHI", GET_NAMES, 0, 0)], [64])
    assert done.data[: done.written] == b"\0light\0reset\0"


def test_all_lines_of_the_chip_without_a_choice(tmp_path: Path) -> None:
    with SimMachine(plugins=[acrn_dm_gpio]) as m:
        it = Rig(m, tmp_path / "chip")
        assert struct.unpack("<HHI", it.driver.read_config(0, 8)) == (4, 0, len("reset.led..busy."))


def test_output_reaches_the_chip_with_its_value(rig: Rig) -> None:
    rig.ask(SET_VALUE, 0, 1)
    assert rig.kernel.requested == {}
    assert rig.ask(SET_DIRECTION, 0, OUT) == (0, 0)
    assert rig.kernel.levels == [0, 1, 1, 0]
    rig.ask(SET_VALUE, 0, 0)
    assert (rig.kernel.levels[1], rig.ask(GET_VALUE, 0)) == (0, (0, 0))


def test_line_that_is_not_used_is_read_and_given_back(rig: Rig) -> None:
    rig.kernel.levels[0] = 1
    assert rig.ask(GET_VALUE, 1) == (0, 1)
    assert rig.open_lines() == set()


def test_line_is_given_back_with_its_direction(rig: Rig) -> None:
    rig.ask(SET_DIRECTION, 0, IN)
    assert rig.open_lines() == {1}
    rig.ask(SET_DIRECTION, 0, NONE)
    assert rig.open_lines() == set()


def test_lines_are_given_back_at_the_reset(rig: Rig) -> None:
    rig.ask(SET_DIRECTION, 0, OUT)
    rig.ask(SET_IRQ, 1, BOTH)
    assert rig.open_lines() == {0, 1}
    rig.driver.reset()
    assert rig.open_lines() == set()


def test_edge_of_the_chip_interrupts(rig: Rig) -> None:
    rig.ask(SET_DIRECTION, 1, IN)
    rig.ask(SET_IRQ, 1, BOTH)
    assert rig.kernel.flags[0] == chip.INPUT | chip.RISING | chip.FALLING
    rig.driver.queue(1).send([struct.pack("<H", 1)], [1])
    rig.driver.queue(1).kick()
    rig.machine.settle()
    rig.kernel.edge(0, 1)
    rig.machine.settle()
    assert [done.data for done in rig.driver.queue(1).completed()] == [b"\x01"]


def test_line_that_the_kernel_refuses_is_an_error_to_the_guest(rig: Rig) -> None:
    blocker, end = socket.socketpair()
    rig.kernel.requested[blocker.fileno()] = 1, end
    assert rig.ask(SET_DIRECTION, 0, IN) == (1, 0)
    assert rig.ask(GET_DIRECTION, 0) == (0, NONE)
    blocker.close()


@pytest.mark.parametrize(
    ("line", "error"), [("nosuch", "has no such line"), ("4", "has no such line"), ("busy", "somebody uses this line")]
)
def test_line_that_can_not_be_had_is_named(tmp_path: Path, line: str, error: str) -> None:
    with SimMachine(plugins=[acrn_dm_gpio]) as m, pytest.raises(ConfigError, match=error):
        Rig(m, tmp_path / "chip", f"line={line}")


def test_file_that_is_no_chip_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SimMachine(plugins=[acrn_dm_gpio]) as m:
        m.add("virtio-gpio", f"chip={tmp_path / 'file'}", slot=3)
        with pytest.raises(HostError, match="is no GPIO chip"):
            m.start()


def test_original_grammar_says_the_same_as_options() -> None:
    config = acrn_dm_gpio.GpioConfig.from_string("@gpiochip0{17=led:RESET},irq=off")
    assert (str(config.chip), config.line, config.irq) == ("/dev/gpiochip0", ("17=led", "RESET"), False)
    with pytest.raises(ConfigError, match="unknown option"):
        acrn_dm_gpio.GpioConfig.from_string("@gpiochip0{1}@gpiochip1{2}")


def test_check_names_a_missing_chip() -> None:
    with SimMachine(plugins=[acrn_dm_gpio]) as m:
        lines = m.add("virtio-gpio", "chip=/nosuch", slot=3).check()
    assert lines == ["virtio-gpio-3:0: chip /nosuch can't be read and written"]
