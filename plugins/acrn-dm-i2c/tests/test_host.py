"""A bus of the host, with the kernel's side played: I2C_RDWR reads and fills the messages' buffers in place."""

import ctypes
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acrn_dm_i2c
import pytest
from acrn_dm_i2c.host import FUNC_I2C, I2C_FUNCS, I2C_RDWR, HostBus, I2cMsg

from acrn_dm import ConfigError, HostError
from acrn_dm.testing import SimMachine

FAIL_NEXT, READ = 1, 2
OK, ERROR = 0, 1


class Kernel:
    """A bus: what came, and the next error."""

    functions = FUNC_I2C

    def __init__(self) -> None:
        self.transactions: list[list[tuple[int, int, bytes]]] = []
        self.fails = False

    def ioctl(self, fd: int, request: int, argument: Any) -> int:
        if request == I2C_FUNCS:
            argument.value = self.functions
            return 0
        assert request == I2C_RDWR
        messages = [argument.msgs[at] for at in range(argument.nmsgs)]
        self.transactions.append([(it.addr, it.flags, ctypes.string_at(it.buf, it.len)) for it in messages])
        if self.fails:
            raise OSError(errno.ENXIO, "nobody there")
        for message in messages:
            if message.flags & 1:
                ctypes.memmove(message.buf, bytes(range(1, message.len + 1)), message.len)
        return len(messages)


class Rig:
    """A machine with an adapter on that bus."""

    def __init__(self, m: SimMachine, path: Path, kernel: Kernel, options: str = "allow=0x50,allow=0x23a") -> None:
        self.machine, self.kernel = m, kernel
        path.touch()
        function = m.add("virtio-i2c", f"bus={path},{options}", slot=3)
        bus = function.device.bus  # type: ignore[attr-defined]
        assert isinstance(bus, HostBus)
        bus.ioctl = kernel.ioctl
        self.driver = m.driver(3)
        self.driver.start()

    def group(self, *messages: tuple[int, bytes | int]) -> list[tuple[int, bytes]]:
        queue = self.driver.queue(0)
        for at, (address, what) in enumerate(messages):
            more = FAIL_NEXT if at + 1 < len(messages) else 0
            header = struct.pack("<HHI", address, 0, more | (READ if isinstance(what, int) else 0))
            queue.send(
                [header] if isinstance(what, int) else [header, what], [what, 1] if isinstance(what, int) else [1]
            )
        queue.kick()
        self.machine.settle()
        return [(it.data[-1], it.data[:-1]) for it in queue.completed()]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with SimMachine(plugins=[acrn_dm_i2c]) as m:
        yield Rig(m, tmp_path / "i2c-1", Kernel())


def test_message_is_as_long_as_the_kernel_s() -> None:
    assert (ctypes.sizeof(I2cMsg), I2cMsg.buf.offset) == (16, 8)


def test_group_is_one_transaction(rig: Rig) -> None:
    assert rig.group((0xA0, b"\x10"), (0xA0, 3)) == [(OK, b""), (OK, b"\x01\x02\x03")]
    assert rig.kernel.transactions == [[(0x50, 0, b"\x10"), (0x50, 1, bytes(3))]]


def test_address_of_10_bits_says_so(rig: Rig) -> None:
    assert rig.group((0x3A << 8 | 0xF0 | 0b10 << 1, b"x")) == [(OK, b"")]
    assert rig.kernel.transactions == [[(0x23A, 0x10, b"x")]]


def test_address_that_is_not_allowed_does_not_answer(rig: Rig) -> None:
    """As on the bus, what comes before it in its group is done."""
    assert [status for status, _ in rig.group((0x22, b"x"))] == [ERROR]
    assert rig.kernel.transactions == []
    assert [status for status, _ in rig.group((0xA0, b"x"), (0x22, b"y"), (0xA0, b"z"))] == [OK, ERROR, ERROR]
    assert rig.kernel.transactions == [[(0x50, 0, b"x")]]


def test_transaction_that_the_kernel_gives_up_fails_whole(rig: Rig) -> None:
    rig.kernel.fails = True
    assert rig.group((0xA0, b"x"), (0xA0, 2)) == [(ERROR, b""), (ERROR, b"\0\0")]


def test_group_that_is_too_long_for_the_kernel_fails(rig: Rig) -> None:
    assert {status for status, _ in rig.group(*[(0xA0, 1)] * 43)} == {ERROR}
    assert rig.kernel.transactions == []


def test_transfers_have_a_loop_of_their_own(rig: Rig) -> None:
    assert "virtio-i2c-3:0" in rig.machine.io_loops


def test_bus_without_plain_transfers_is_refused(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.functions = 0
    with SimMachine(plugins=[acrn_dm_i2c]) as m, pytest.raises(HostError, match="SMBus commands only"):
        Rig(m, tmp_path / "i2c-1", kernel)


def test_file_that_is_no_bus_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SimMachine(plugins=[acrn_dm_i2c]) as m:
        m.add("virtio-i2c", f"bus={tmp_path / 'file'},allow=1", slot=3)
        with pytest.raises(HostError, match="is no I2C bus"):
            m.start()


def test_check_names_a_missing_bus() -> None:
    with SimMachine(plugins=[acrn_dm_i2c]) as m:
        lines = m.add("virtio-i2c", "bus=/nosuch,allow=1", slot=3).check()
    assert lines == ["virtio-i2c-3:0: bus /nosuch can't be read and written"]


def test_original_grammar_says_the_same_as_options() -> None:
    config = acrn_dm_i2c.I2cConfig.from_string("1:50:3c")
    assert (str(config.bus), config.allow) == ("/dev/i2c-1", (0x50, 0x3C))
    with pytest.raises(ConfigError, match="no ACPI nodes"):
        acrn_dm_i2c.I2cConfig.from_string("1:50@cam1")
    with pytest.raises(ConfigError, match="unknown option"):
        acrn_dm_i2c.I2cConfig.from_string("1:50,2:51")


def test_one_address_is_one_guest_s(tmp_path: Path) -> None:
    config = acrn_dm_i2c.I2cConfig(bus=tmp_path, allow=(0x50, 0x51))
    assert [claim.key[-1] for claim in HostBus("x", config).claims()] == [0x50, 0x51]
