"""Simulated lines: whoever writes to ``control`` is the board around the chip."""

from collections.abc import Callable, Sequence
from typing import cast

import attrs

from acrn_dm import Claim, CommandLines, IoLoop
from acrn_dm_gpio.bank import Changed, Direction
from acrn_dm_gpio.config import GpioConfig


@attrs.define(eq=False)
class Pin:
    """One line of the board."""

    name: str
    direction: Direction = Direction.NONE
    driven: int = 0  # by the guest, while it is an output
    outside: int = 0  # by the board
    watched: bool = False

    @property
    def level(self) -> int:
        """What is sensed: an output has the guest's value."""
        return self.driven if self.direction is Direction.OUT else self.outside


class Simulated:
    """The bank of ``line`` and ``count``."""

    def __init__(self, name: str, config: GpioConfig) -> None:
        self.config = config
        names = [*config.line, *[""] * ((config.count or len(config.line)) - len(config.line))]
        self._pins = [Pin(it) for it in names]
        self._lines = CommandLines(name, self._execute)
        self._loop: IoLoop | None = None
        self._changed: Changed = lambda line, level: None
        self._begun = False

    @property
    def text(self) -> str:
        """How many."""
        return f"{len(self._pins)} simulated lines"

    @property
    def names(self) -> Sequence[str]:
        """As the options say."""
        return [pin.name for pin in self._pins]

    def check(self) -> list[str]:
        """Whether script and control can be used."""
        return self._lines.check(script=self.config.script, control=self.config.control)

    def claims(self) -> Sequence[Claim]:
        """The control."""
        return self._lines.claims(self.config.control)

    def open(self, loop: IoLoop, changed: Changed) -> None:
        """Listen. Raises ConfigError and HostError."""
        self._loop, self._changed = loop, changed
        if self.config.control is not None:
            self._lines.open(loop, self.config.control)

    def started(self) -> None:
        """Play the script, once."""
        if not self._begun and self.config.script is not None:
            self._lines.play(cast(IoLoop, self._loop), self.config.script)
        self._begun = True

    def configure(self, line: int, direction: Direction, value: int, *, watch: bool) -> None:
        """The guest's side of a line."""
        pin = self._pins[line]
        pin.direction, pin.driven, pin.watched = direction, value, watch

    def level(self, line: int) -> int:
        """The level now."""
        return self._pins[line].level

    def drive(self, line: int, value: int) -> None:
        """The guest's value."""
        self._pins[line].driven = value

    def close(self) -> None:
        """Hear nothing any more."""
        self._lines.close()

    def _execute(self, line: str) -> str:
        verb, *words = line.split()
        verbs: dict[str, tuple[int, Callable[..., str]]] = {
            "set": (2, self._set),
            "pulse": (1, self._pulse),
            "get": (1, lambda name: str(self._pins[self._find(name)].level)),
            "list": (0, self._list),
        }
        if verb not in verbs:
            raise ValueError(f"{verb}: expected {', '.join(verbs)}, wait")
        count, act = verbs[verb]
        if len(words) != count:
            raise ValueError(f"{verb}: expected {count} words behind it")
        return act(*words)

    def _find(self, name: str) -> int:
        names = self.names
        if name in names:
            return names.index(name)
        if name.isascii() and name.isdigit() and int(name) < len(names):
            return int(name)
        raise ValueError(f"{name}: no such line; there are {', '.join(filter(None, names)) or len(names)}")

    def _set(self, name: str, value: str) -> str:
        if value not in ("0", "1"):
            raise ValueError(f"{value}: expected 0 or 1")
        self._drive_outside(self._find(name), int(value))
        return ""

    def _pulse(self, name: str) -> str:
        line = self._find(name)
        before = self._pins[line].outside
        self._drive_outside(line, 1 - before)
        self._drive_outside(line, before)
        return ""

    def _drive_outside(self, line: int, value: int) -> None:
        pin = self._pins[line]
        if pin.direction is Direction.OUT:
            raise ValueError("the guest drives it")
        changed, pin.outside = pin.outside != value, value
        if changed and pin.watched:
            self._changed(line, value)

    def _list(self) -> str:
        return " ".join(f"{n}:{p.name}:{p.direction.name.lower()}:{p.level}" for n, p in enumerate(self._pins))
