"""The host's input devices: /dev/input/eventN (linux/input.h)."""

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Callable, Sequence

import attrs

from acrn_dm import Claim, HostError, IoLoop, path_key
from acrn_dm_input import codes
from acrn_dm_input.config import InputConfig
from acrn_dm_input.description import UNION, AbsInfo, Description
from acrn_dm_input.source import Send
from acrn_dm_input.updates import Event

log = logging.getLogger(__name__)

INPUT_EVENT = struct.Struct("@qqHHi")  # struct input_event on 64-bit hosts: time, type, code, value
BATCH = 64  # events read at once
LONGEST = 62  # events of one update that are kept: with SYN_REPORT fewer than a queue has
PASSED = (codes.EV_KEY, codes.EV_REL, codes.EV_ABS, codes.EV_MSC, codes.EV_SW, codes.EV_LED, codes.EV_SND)
ABS_COUNT, KEY_BYTES = 0x40, 96  # ABS_CNT; KEY_CNT / 8

IOC_READ = 2 << 30
EVIOCGRAB = 1 << 30 | 4 << 16 | 0x4590


def eviocg(number: int, size: int) -> int:
    """The request that reads *size* bytes of item *number*."""
    return IOC_READ | size << 16 | 0x45 << 8 | number


NAME, UNIQ, PROP, KEYS_NOW, BITS, ABS = 0x06, 0x08, 0x09, 0x18, 0x20, 0x40
EVIOCGID, EVIOCGVERSION = eviocg(0x02, 8), eviocg(0x01, 4)

Ioctl = Callable[[int, int, bytes], bytes | int]


@attrs.define(eq=False)
class Node:
    """An open event device, asked what it is."""

    fd: int
    ioctl: Ioctl = fcntl.ioctl

    def ask(self, number: int, size: int) -> bytes:
        """Item *number*, at most *size* bytes of it. Raises OSError."""
        return bytes(self.ioctl(self.fd, eviocg(number, size), bytes(size)))

    def text(self, number: int) -> str:
        """Item *number* as text; empty where there is none."""
        try:
            return self.ask(number, UNION + 1).split(b"\0")[0].decode(errors="replace")
        except OSError:
            return ""

    def describe(self, config: InputConfig) -> Description:
        """Everything a guest asks. Raises OSError."""
        events = {kind: self.ask(BITS + kind, KEY_BYTES).rstrip(b"\0") for kind in PASSED}
        axes = {}
        for axis in range(ABS_COUNT):
            bits = events[codes.EV_ABS]
            if axis // 8 < len(bits) and bits[axis // 8] >> axis % 8 & 1:
                _, low, high, fuzz, flat, resolution = struct.unpack("@6i", self.ask(ABS + axis, 24))
                axes[axis] = AbsInfo(minimum=low, maximum=high, fuzz=fuzz, flat=flat, resolution=resolution)
        bus, vendor, product, version = struct.unpack("@4H", self.ask(0x02, 8))
        return Description(
            name=config.name or _cut(self.text(NAME)),
            serial=config.serial or _cut(self.text(UNIQ)),
            ids=(bus, vendor, product, version),
            properties=self.ask(PROP, 8).rstrip(b"\0"),
            events={kind: bits for kind, bits in events.items() if bits},
            axes=axes,
        )


class Evdev:
    """The source of one host device. While nobody drives it in the guest its events are lost, as they are to a
    computer that is off.
    """

    def __init__(self, name: str, config: InputConfig, ioctl: Ioctl = fcntl.ioctl) -> None:
        assert config.evdev is not None
        self.name, self.config, self.path = name, config, config.evdev
        self.description = Description(name=config.name)
        self._node = Node(-1, ioctl)
        self._loop: IoLoop | None = None
        self._send: Send | None = None
        self._group: list[Event] = []
        self._held: set[int] = set()  # keys that the guest takes for pressed
        self._lost = False  # events since the last SYN_REPORT are no whole update

    @property
    def text(self) -> str:
        """The path."""
        return str(self.path)

    def check(self) -> list[str]:
        """Whether the device can be opened."""
        ok = os.access(self.path, os.R_OK | os.W_OK)
        return [] if ok else [f"{self.name}: evdev {self.path} can't be read and written"]

    def claims(self) -> Sequence[Claim]:
        """The device, which is grabbed."""
        return [Claim(key=path_key(self.path), what=str(self.path))] if self.config.grab else []

    def open(self, loop: IoLoop, send: Send) -> None:
        """Open and grab it. Raises HostError."""
        self._loop, self._send = loop, send
        hint = None
        try:
            self._node.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self.description = self._node.describe(self.config)
            if self.config.grab:
                hint = "somebody has grabbed it; grab=off shares it"
                self._node.ioctl(self._node.fd, EVIOCGRAB, 1)  # type: ignore[arg-type]  # this one takes a number
        except OSError as e:
            text = "is no event device" if e.errno in (errno.ENOTTY, errno.EINVAL) else None
            raise HostError.from_os(
                f"opening {self.path}", e, text or (hint if e.errno == errno.EBUSY else None)
            ) from e
        loop.add(self._node.fd, self._readable)

    def started(self) -> None:
        """The driver takes no key for pressed."""
        self._held.clear()

    def status(self, event: Event) -> None:
        """LEDs and sounds go to the device. Raises nothing: a device that is gone has none."""
        if event.type in (codes.EV_LED, codes.EV_SND) and self._node.fd >= 0:
            try:
                for it in (event, Event(codes.EV_SYN, codes.SYN_REPORT, 0)):
                    os.write(self._node.fd, INPUT_EVENT.pack(0, 0, *it))
            except OSError as e:
                log.warning("%s: writing %s: %s", self.name, self.path, e.strerror)

    def close(self) -> None:
        """Give it back; the kernel ends the grab."""
        fd, self._node.fd = self._node.fd, -1
        if fd >= 0:
            if self._loop is not None:
                self._loop.remove(fd)
            os.close(fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._node.fd, BATCH * INPUT_EVENT.size)
        except BlockingIOError:
            return
        except OSError as e:
            log.warning("%s: %s: %s; it is gone for good", self.name, self.path, e.strerror)
            data = b""
        if not data:
            self._release(self._held)
            self.close()
            return
        for _, _, *event in INPUT_EVENT.iter_unpack(data[: len(data) // INPUT_EVENT.size * INPUT_EVENT.size]):
            self._take(Event(*event))

    def _take(self, event: Event) -> None:
        if event.type == codes.EV_SYN:
            if event.code == codes.SYN_DROPPED:
                self._lost = True
            elif event.code == codes.SYN_REPORT:
                self._end()
        elif event.type in PASSED and not self._lost:
            self._group.append(event)
            self._lost = len(self._group) > LONGEST

    def _end(self) -> None:
        group, self._group = self._group, []
        lost, self._lost = self._lost, False
        if lost:
            self.catch_up()
        elif group and self._deliver(group):
            for event in group:
                if event.type == codes.EV_KEY:
                    (self._held.add if event.value else self._held.discard)(event.code)

    def catch_up(self) -> None:
        """Events were lost: a key that is not pressed any more must not seem to be."""
        try:
            now = int.from_bytes(self._node.ask(KEYS_NOW, KEY_BYTES), "little")
        except OSError:
            now = 0
        self._release({code for code in self._held if not now >> code & 1})

    def _release(self, keys: set[int]) -> None:
        for code in sorted(keys):
            if self._deliver([Event(codes.EV_KEY, code, 0)]):
                self._held.discard(code)

    def _deliver(self, group: Sequence[Event]) -> bool:
        assert self._send is not None
        return self._send(group)


def _cut(text: str) -> str:
    """As much of *text* as a guest can be told."""
    return text.encode()[:UNION].decode(errors="ignore")
