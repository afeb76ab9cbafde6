"""Lines of a chip of the host: /dev/gpiochipN, version 2 of its interface (linux/gpio.h)."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence

import attrs

from acrn_dm import Claim, ConfigError, HostError, IoLoop
from acrn_dm_gpio.bank import Changed, Direction
from acrn_dm_gpio.config import MOST_LINES, GpioConfig

CHIP_INFO = struct.Struct("@32s32sI")  # name, label, lines
LINE_INFO = struct.Struct("@32s32sIIQ160s4I")  # name, consumer, offset, num_attrs, flags, attributes, padding
CONFIG = struct.Struct("@QI5I" + "IIQQ" + "216s")  # flags, num_attrs, padding; one attribute; room for nine more
REQUEST = struct.Struct("@64I32s272sII5Ii")  # offsets, consumer, config, num_lines, event_buffer_size, padding, fd
VALUES = struct.Struct("@QQ")  # bits, mask
EVENT = struct.Struct("@QIIII6I")  # timestamp, id, offset, seqno, line_seqno, padding
RISING_EDGE = 1
USED, INPUT, OUTPUT, RISING, FALLING = 1 << 0, 1 << 2, 1 << 3, 1 << 4, 1 << 5
OUTPUT_VALUES = 2  # attribute id
CONSUMER = b"acrn-dm"


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0xB4 << 8 | number


GET_CHIP_INFO = _ioctl(2, 0x01, CHIP_INFO.size)
GET_LINE_INFO = _ioctl(3, 0x05, LINE_INFO.size)
GET_LINE = _ioctl(3, 0x07, REQUEST.size)
SET_CONFIG = _ioctl(3, 0x0D, CONFIG.size)
GET_VALUES = _ioctl(3, 0x0E, VALUES.size)
SET_VALUES = _ioctl(3, 0x0F, VALUES.size)
LATER = (GET_LINE_INFO, GET_LINE, SET_CONFIG, GET_VALUES, SET_VALUES)  # while the guest runs

Ioctl = Callable[[int, int, bytes], bytes]


def pack_config(direction: Direction, value: int, *, watch: bool) -> bytes:
    """struct gpio_v2_line_config of one line."""
    flags = OUTPUT if direction is Direction.OUT else INPUT
    if watch:
        flags |= RISING | FALLING
    given = direction is Direction.OUT
    attribute = (OUTPUT_VALUES, 0, value, 1) if given else (0, 0, 0, 0)
    return CONFIG.pack(flags, int(given), *[0] * 5, *attribute, b"")


def _ask(fd: int, request: int, data: bytes) -> bytes:
    return fcntl.ioctl(fd, request, data)


@attrs.define(eq=False)
class HostLine:
    """One line of the chip. *fd* is there while the guest uses it."""

    offset: int
    name: str  # the guest's
    fd: int = -1


class Chip:
    """The bank of ``chip``."""

    def __init__(self, name: str, config: GpioConfig, ioctl: Ioctl = _ask) -> None:
        assert config.chip is not None
        self.name, self.config, self.path = name, config, config.chip
        self.ioctl = ioctl
        self._fd = -1
        self._lines: list[HostLine] = []
        self._loop: IoLoop | None = None
        self._changed: Changed = lambda line, level: None

    @property
    def text(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def names(self) -> Sequence[str]:
        """As the options say, or the chip."""
        return [line.name for line in self._lines]

    def check(self) -> list[str]:
        """Whether the chip can be opened."""
        ok = os.access(self.path, os.R_OK | os.W_OK)
        return [] if ok else [f"{self.name}: chip {self.path} can't be read and written"]

    def claims(self) -> Sequence[Claim]:
        """None: the kernel gives each line to one user."""
        return []

    def open(self, loop: IoLoop, changed: Changed) -> None:
        """Open the chip and find the lines. Raises ConfigError and HostError."""
        self._loop, self._changed = loop, changed
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            _, _, count = CHIP_INFO.unpack(self.ioctl(self._fd, GET_CHIP_INFO, bytes(CHIP_INFO.size)))
            there = [self._info(offset) for offset in range(count)]
        except OSError as e:
            hint = "is no GPIO chip" if e.errno in (errno.ENOTTY, errno.EINVAL) else None
            raise HostError.from_os(f"opening {self.path}", e, hint) from e
        wanted = self.config.line or [str(offset) for offset in range(min(count, self.config.count or MOST_LINES))]
        self._lines = [self._find(text, there) for text in wanted]
        seen: set[str] = set()
        for line in self._lines:  # a name is one line's (5.18.6.1), which chips don't promise
            line.name = "" if line.name in seen else line.name
            seen.add(line.name)

    def started(self) -> None:
        """There is no script."""

    def configure(self, line: int, direction: Direction, value: int, *, watch: bool) -> None:
        """Request the line from the kernel, change it, or give it up. Raises OSError."""
        it = self._lines[line]
        if direction is Direction.NONE and not watch:
            self._release(it)
            return
        config = pack_config(direction, value, watch=watch)
        if it.fd >= 0:
            self.ioctl(it.fd, SET_CONFIG, config)
            return
        offsets = [it.offset, *[0] * 63]
        data = REQUEST.pack(*offsets, CONSUMER, config, 1, 0, *[0] * 5, -1)
        it.fd = REQUEST.unpack(self.ioctl(self._fd, GET_LINE, data))[-1]
        os.set_blocking(it.fd, False)
        assert self._loop is not None
        self._loop.add(it.fd, lambda: self._events(line))

    def level(self, line: int) -> int:
        """The level now; a line that the guest does not use is looked at as an input. Raises OSError."""
        it = self._lines[line]
        if it.fd < 0:
            self.configure(line, Direction.IN, 0, watch=False)
            try:
                return self.level(line)
            finally:
                self._release(it)
        bits, _ = VALUES.unpack(self.ioctl(it.fd, GET_VALUES, VALUES.pack(0, 1)))
        return int(bits & 1)

    def drive(self, line: int, value: int) -> None:
        """An output has another value. Raises OSError."""
        self.ioctl(self._lines[line].fd, SET_VALUES, VALUES.pack(value, 1))

    def close(self) -> None:
        """Give lines and chip back."""
        for line in self._lines:
            self._release(line)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _release(self, line: HostLine) -> None:
        fd, line.fd = line.fd, -1
        if fd >= 0:
            assert self._loop is not None
            self._loop.remove(fd)
            os.close(fd)

    def _events(self, line: int) -> None:
        """The kernel has seen edges."""
        it = self._lines[line]
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(it.fd, 16 * EVENT.size)
        for _, kind, *_ in EVENT.iter_unpack(data[: len(data) // EVENT.size * EVENT.size]):
            if it.fd >= 0:
                self._changed(line, int(kind == RISING_EDGE))

    def _info(self, offset: int) -> tuple[str, bool]:
        """Name of a line, and whether somebody uses it."""
        asked = LINE_INFO.pack(b"", b"", offset, 0, 0, b"", 0, 0, 0, 0)
        name, _, _, _, flags, *_ = LINE_INFO.unpack(self.ioctl(self._fd, GET_LINE_INFO, asked))
        return name.split(b"\0")[0].decode(errors="replace"), bool(flags & USED)

    def _find(self, text: str, there: Sequence[tuple[str, bool]]) -> HostLine:
        """The line that ``NUMBER`` or ``NAME``, with ``=NAME`` behind, says. Raises ConfigError."""
        which, _, new = text.partition("=")
        names = [name for name, _ in there]
        if which in names and which:
            offset = names.index(which)
        elif which.isascii() and which.isdigit() and int(which) < len(names):
            offset = int(which)
        else:
            raise ConfigError(f"{self.path} has no such line; it has {len(names)}", option="line", value=which)
        if self.config.line and there[offset][1]:
            raise ConfigError(f"somebody uses this line of {self.path}", option="line", value=which)
        name = new or names[offset]
        return HostLine(offset, name if name.isascii() and name.isprintable() else "")
