"""A ring whose client is told what was written to its memory, before the driver is shown that it was.

For clients that emulate their CPUs and keep translations of code: they notice what they write themselves, and not what
we write to the memory that both have mapped.
"""

from collections.abc import Callable, Sequence
from typing import Any

from acrn_dm._fastring import Chain
from acrn_dm.ring.ring import Ring

TellWrites = Callable[[Sequence[tuple[int, int]]], None]  # gets the guest address and the length of each part


class ToldRing:
    """The ring *inner*, of any format; a ``Ring`` itself. *tell* may take its time, and fails on nothing."""

    def __init__(self, inner: Ring, tell: TellWrites) -> None:
        self._inner = inner
        self._tell = tell
        self._due: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def push(self, chain: Chain, written: int | None = None) -> None:
        """Return a chain, whose first *written* bytes are told of at the next ``publish``. Raises ValueError as a ring
        does.
        """
        left = chain.written if written is None else written
        ranges = chain.writable_ranges()
        self._inner.push(chain, written)
        for gpa, length in ranges:
            if left > 0 and length:
                self._due.append((gpa, min(length, left)))
            left -= length

    def publish(self) -> bool:
        """Tell, then show."""
        self._tell_all()
        return self._inner.publish()

    def hold(self) -> bool:
        """As ``publish``."""
        self._tell_all()
        return self._inner.hold()

    def close(self) -> None:
        """Let go of guest memory."""
        self._due.clear()
        self._inner.close()

    def _tell_all(self) -> None:
        due, self._due = self._due, []
        if due:
            self._tell(due)
