"""Banks of lines: what stands behind the controller."""

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

from acrn_dm import Claim, IoLoop

Changed = Callable[[int, int], None]  # line and its new level; on the loop's thread


class Direction(enum.IntEnum):
    """VIRTIO_GPIO_DIRECTION_* (5.18.6)."""

    NONE = 0
    OUT = 1
    IN = 2


class Bank(Protocol):
    """Some lines. Methods that reach a line raise OSError where the host refuses."""

    @property
    def text(self) -> str:
        """It, in a word or two."""

    @property
    def names(self) -> Sequence[str]:
        """A name for each line, or nothing; known from ``open`` on."""

    def check(self) -> list[str]:
        """What is missing, one line each."""

    def claims(self) -> Sequence[Claim]:
        """What only one device can have."""

    def open(self, loop: IoLoop, changed: Changed) -> None:
        """Begin; levels of watched lines that change go to *changed*. Raises ConfigError and HostError."""

    def started(self) -> None:
        """The driver is there."""

    def configure(self, line: int, direction: Direction, value: int, *, watch: bool) -> None:
        """Let the guest have *line* in *direction*, driven to *value*; NONE: give it up. *watch*: report changes."""

    def level(self, line: int) -> int:
        """The level now."""

    def drive(self, line: int, value: int) -> None:
        """An output has another value."""

    def close(self) -> None:
        """Give everything back. Idempotent."""
