"""A bus of the host: /dev/i2c-N, a whole transaction by each I2C_RDWR (linux/i2c-dev.h)."""

import ctypes
import errno
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from acrn_dm import Claim, HostError, IoLoop
from acrn_dm_i2c.config import I2cConfig
from acrn_dm_i2c.message import BusError, Message

log = logging.getLogger(__name__)

I2C_FUNCS, I2C_RDWR = 0x0705, 0x0707
FUNC_I2C = 1
M_RD, M_TEN = 0x0001, 0x0010
MOST_MESSAGES = 42  # I2C_RDWR_IOCTL_MAX_MSGS

Ioctl = Callable[[int, int, Any], int]


class I2cMsg(ctypes.Structure):
    """struct i2c_msg."""

    _fields_ = (
        ("addr", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("len", ctypes.c_uint16),
        ("buf", ctypes.c_void_p),
    )


class RdwrData(ctypes.Structure):
    """struct i2c_rdwr_ioctl_data."""

    _fields_ = (("msgs", ctypes.POINTER(I2cMsg)), ("nmsgs", ctypes.c_uint32))


class HostBus:
    """The bus of ``bus``; addresses that are not allowed do not answer."""

    slow = True

    def __init__(self, name: str, config: I2cConfig, ioctl: Ioctl = fcntl.ioctl) -> None:
        assert config.bus is not None
        self.name, self.path, self.allowed = name, config.bus, frozenset(config.allow)
        self.ioctl = ioctl
        self._fd = -1

    @property
    def text(self) -> str:
        """The path."""
        return str(self.path)

    def check(self) -> list[str]:
        """Whether the bus can be opened."""
        ok = os.access(self.path, os.R_OK | os.W_OK)
        return [] if ok else [f"{self.name}: bus {self.path} can't be read and written"]

    def claims(self) -> Sequence[Claim]:
        """Each address of the bus."""
        key = os.path.realpath(self.path)
        return [Claim(key=("i2c", key, it), what=f"address {it:#x} of {self.path}") for it in sorted(self.allowed)]

    def open(self, loop: IoLoop) -> None:
        """Open it, and see whether it does plain transfers. Raises HostError."""
        functions = ctypes.c_ulong()
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            self.ioctl(self._fd, I2C_FUNCS, functions)
        except OSError as e:
            hint = "is no I2C bus" if e.errno in (errno.ENOTTY, errno.EINVAL) else None
            raise HostError.from_os(f"opening {self.path}", e, hint) from e
        if not functions.value & FUNC_I2C:
            raise HostError(f"{self.path} does SMBus commands only, and no plain I2C transfers")

    def started(self) -> None:
        """There is no script."""

    def transfer(self, messages: Sequence[Message]) -> list[bytes]:
        """One I2C_RDWR of the messages before one that can't be. Raises BusError."""
        reached = next((n for n, it in enumerate(messages) if it.address not in self.allowed), len(messages))
        if len(messages) > MOST_MESSAGES:
            raise BusError
        results = self._transfer(messages[:reached]) if reached else []
        if reached < len(messages):
            raise BusError(results)
        return results

    def _transfer(self, messages: Sequence[Message]) -> list[bytes]:
        """The kernel does not tell which message failed. Raises BusError."""
        buffers = [
            ctypes.create_string_buffer(message.length) if message.data is None else _buffer(message.data)
            for message in messages
        ]
        rows = (I2cMsg * len(messages))(*map(_row, messages, buffers))
        try:
            self.ioctl(self._fd, I2C_RDWR, RdwrData(rows, len(messages)))
        except OSError as e:
            log.debug("%s: %s: %s", self.name, self.path, e.strerror)
            raise BusError from e
        return [buffer.raw if message.data is None else b"" for message, buffer in zip(messages, buffers, strict=True)]

    def close(self) -> None:
        """Close the bus."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _buffer(data: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(data, len(data))


def _row(message: Message, buffer: "ctypes.Array[ctypes.c_char]") -> I2cMsg:
    flags = (M_RD if message.data is None else 0) | (M_TEN if message.ten_bits else 0)
    return I2cMsg(message.address, flags, len(buffer), ctypes.addressof(buffer))
