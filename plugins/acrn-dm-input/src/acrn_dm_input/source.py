"""Sources of events: what stands behind an input device."""

from collections.abc import Callable, Sequence
from typing import Protocol

from acrn_dm import Claim, IoLoop
from acrn_dm_input.description import Description
from acrn_dm_input.updates import Event

# Takes one update, without its SYN_REPORT, on the loop's thread; returns whether the driver will get it.
Send = Callable[[Sequence[Event]], bool]


class Source(Protocol):
    """One input device, real or played."""

    @property
    def text(self) -> str:
        """It, in a word or two."""

    @property
    def description(self) -> Description:
        """What the guest is told; known from ``open`` on."""

    def check(self) -> list[str]:
        """What is missing, one line each."""

    def claims(self) -> Sequence[Claim]:
        """What only one device can have."""

    def open(self, loop: IoLoop, send: Send) -> None:
        """Begin; updates go to *send*. Raises ConfigError and HostError."""

    def started(self) -> None:
        """The driver is there. On the loop's thread, or with the loop held."""

    def catch_up(self) -> None:
        """Updates were dropped, and from now on the driver has room again. On the loop's thread."""

    def status(self, event: Event) -> None:
        """The guest changed an LED, or the like. On the loop's thread. Raises HostError."""

    def close(self) -> None:
        """End. Idempotent."""
