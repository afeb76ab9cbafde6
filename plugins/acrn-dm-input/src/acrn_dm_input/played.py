"""Input devices that lines of text play: keyboard, mouse, tablet."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from acrn_dm import Claim, CommandLines, HostError, IoLoop
from acrn_dm_input import codes
from acrn_dm_input.config import InputConfig
from acrn_dm_input.description import VENDOR, AbsInfo, Description, bitmap
from acrn_dm_input.source import Send
from acrn_dm_input.updates import Event, Updates

AXIS = 32767
STEPS = range(-32768, 32768)
PRODUCTS = {"keyboard": 1, "mouse": 2, "tablet": 3}
POINTER_KEYS = bitmap(codes.BUTTONS.values())


def described(config: InputConfig) -> Description:
    """The description of a played device of ``config.kind``."""
    axes: Mapping[int, AbsInfo] = {}
    properties = b""
    if config.kind == "keyboard":
        leds = bitmap(range(len(codes.LEDS)))
        # Without codes of its own: the guest's input layer repeats keys that are held (5.8.5 has the type only).
        events = {codes.EV_KEY: bitmap(codes.KEYS.values()), codes.EV_LED: leds, codes.EV_REP: b"\0"}
    elif config.kind == "mouse":
        moves = bitmap((codes.REL_X, codes.REL_Y, codes.REL_WHEEL))
        events = {codes.EV_KEY: POINTER_KEYS, codes.EV_REL: moves}
    else:
        wheel, places = bitmap((codes.REL_WHEEL,)), bitmap((codes.ABS_X, codes.ABS_Y))
        events = {codes.EV_KEY: POINTER_KEYS, codes.EV_REL: wheel, codes.EV_ABS: places}
        axes = dict.fromkeys((codes.ABS_X, codes.ABS_Y), AbsInfo(minimum=0, maximum=AXIS))
        properties = bitmap((codes.PROP_POINTER,))
    return Description(
        name=config.name or f"acrn-dm {config.kind}",
        serial=config.serial,
        ids=(0x06, VENDOR, PRODUCTS[config.kind], 1),
        properties=properties,
        events=events,
        axes=axes,
    )


@attrs.define(eq=False)
class LedFile:
    """The LEDs, and the file that shows them: one line of bounded length, however often the guest changes them."""

    path: Path | None
    lit: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(codes.LEDS, 0))
    _fd: int = attrs.field(default=-1, init=False)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.lit.items())

    def open(self) -> None:
        """Make the file. Raises HostError."""
        if self.path is not None:
            try:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
                self._show()
            except OSError as e:
                raise HostError.from_os(f"writing {self.path}", e) from e

    def change(self, event: Event) -> None:
        """The guest lit an LED or put one out; others than those of a keyboard are ignored. Raises HostError."""
        if event.type == codes.EV_LED and event.code < len(codes.LEDS):
            self.lit[codes.LEDS[event.code]] = int(bool(event.value))
            try:
                self._show()
            except OSError as e:
                raise HostError.from_os(f"writing {self.path}", e) from e

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _show(self) -> None:
        if self._fd >= 0:  # every state has the same length
            os.pwrite(self._fd, f"{self}\n".encode(), 0)


class Played:
    """A device that ``script`` and ``control`` play. A line whose updates the guest has no room for is refused: half of
    a key press would be a key that is held.
    """

    def __init__(self, name: str, config: InputConfig, updates: Updates) -> None:
        self.config = config
        self.description = described(config)
        self.leds = LedFile(config.leds)
        self._lines = CommandLines(name, self._execute)
        self._keys = codes.KEYS if config.kind == "keyboard" else codes.BUTTONS
        self._updates = updates
        self._loop: IoLoop | None = None
        self._send: Send | None = None
        self._begun = False
        common = {"press": self._press, "release": self._release, "stat": self._stat}
        own: dict[str, dict[str, Callable[[str], str | None]]] = {
            "keyboard": {"key": self._key, "type": self._type, "leds": lambda rest: str(self.leds)},
            "mouse": {"move": self._move, "click": self._click, "wheel": self._wheel},
            "tablet": {"abs": self._abs, "click": self._click, "wheel": self._wheel},
        }
        self._verbs: dict[str, Callable[[str], str | None]] = {**common, **own[config.kind]}

    @property
    def text(self) -> str:
        """The kind, and who plays it."""
        player = self.config.control or self.config.script
        return self.config.kind if player is None else f"{self.config.kind} {player}"

    def check(self) -> list[str]:
        """Whether script and control can be used."""
        return self._lines.check(script=self.config.script, control=self.config.control)

    def claims(self) -> Sequence[Claim]:
        """The control."""
        return self._lines.claims(self.config.control)

    def open(self, loop: IoLoop, send: Send) -> None:
        """Listen. Raises ConfigError and HostError."""
        self._loop, self._send = loop, send
        self.leds.open()
        if self.config.control is not None:
            self._lines.open(loop, self.config.control)

    def started(self) -> None:
        """Play the script, once."""
        if not self._begun and self.config.script is not None:
            self._lines.play(cast(IoLoop, self._loop), self.config.script)
        self._begun = True

    def catch_up(self) -> None:
        """Nothing was dropped."""

    def status(self, event: Event) -> None:
        """LEDs."""
        self.leds.change(event)

    def close(self) -> None:
        """Hear nothing any more."""
        self._lines.close()
        self.leds.close()

    def _execute(self, line: str) -> str:
        verb, _, rest = line.partition(" ")
        if verb not in self._verbs:
            raise ValueError(f"{verb}: a {self.config.kind} has {', '.join(self._verbs)}, wait")
        if not self._begun and verb not in ("leds", "stat"):
            raise ValueError("the guest's driver has not started yet")
        return self._verbs[verb](rest) or ""

    def _update(self, *updates: Sequence[Event]) -> None:
        """All of these, or a ValueError."""
        assert self._send is not None
        if sum(len(update) + 1 for update in updates) > self._updates.room:
            raise ValueError(f"the guest has room for {self._updates.room} events and takes no more at the moment")
        if not all([self._send(update) for update in updates]):
            raise ValueError("the guest does not take it")

    def _code(self, name: str) -> int:
        if name.strip().lower() not in self._keys:
            raise ValueError(f"{name.strip()!r} is no {'key' if self._keys is codes.KEYS else 'button'}")
        return self._keys[name.strip().lower()]

    def _press(self, rest: str) -> None:
        self._update([Event(codes.EV_KEY, self._code(rest), 1)])

    def _release(self, rest: str) -> None:
        self._update([Event(codes.EV_KEY, self._code(rest), 0)])

    def _key(self, rest: str) -> None:
        self._update(*_chord([self._code(name) for name in rest.split("+")]))

    _click = _key

    def _type(self, rest: str) -> None:
        strokes = codes.strokes(rest)
        self._update(*(update for stroke in strokes for update in _chord([codes.KEYS[name] for name in stroke])))

    def _move(self, rest: str) -> None:
        x, y = _numbers(rest, 2, STEPS)
        steps = ((codes.REL_X, x), (codes.REL_Y, y))
        self._update([Event(codes.EV_REL, axis, step) for axis, step in steps if step])

    def _wheel(self, rest: str) -> None:
        self._update([Event(codes.EV_REL, codes.REL_WHEEL, *_numbers(rest, 1, STEPS))])

    def _abs(self, rest: str) -> None:
        x, y = _numbers(rest, 2, range(AXIS + 1))
        self._update([Event(codes.EV_ABS, codes.ABS_X, x), Event(codes.EV_ABS, codes.ABS_Y, y)])

    def _stat(self, rest: str) -> str:
        return f"sent={self._updates.sent} dropped={self._updates.dropped}"


def _chord(keys: Sequence[int]) -> list[list[Event]]:
    """The updates that press *keys* and release them in reverse order."""
    presses = [(code, 1) for code in keys] + [(code, 0) for code in keys[::-1]]
    return [[Event(codes.EV_KEY, code, value)] for code, value in presses]


def _numbers(text: str, count: int, allowed: range) -> list[int]:
    """The *count* numbers of *text*. Raises ValueError."""
    words = text.split()
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(number in allowed for number in numbers):
        raise ValueError(f"{text!r}: expected {count} of {allowed[0]} to {allowed[-1]}")
    return numbers
