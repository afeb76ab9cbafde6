"""Output that its reader on the host has not taken yet: bounded in bytes, and in the time a guest waits for it.

Guests print with locks held and interrupts off, and spin until the device has taken what they print. So a reader that
sleeps must not hold them: what does not go out at once is kept. When ``KEPT`` bytes wait, the guest does, too, as for a
serial line: as long as the reader takes ``RATE`` bytes a second, without an end, else ``PATIENCE_S``, and that much
again once the reader has taken as much as the line would have meanwhile. Then the oldest bytes are dropped.
"""

from collections.abc import Callable, Sequence

import attrs

from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.records import define

KEPT = 256 << 10
RATE = 11_520  # bytes a second: 115,200 baud
PATIENCE_S = 0.1
LEAST_S = 0.001  # waiting less is not worth a timer
CHUNK = 64 << 10  # offered to the reader at once

Send = Callable[[Sequence[memoryview]], int]  # returns how many bytes were taken


@define(eq=False)
class Backlog:
    """The bytes of one port that wait for their reader. Not thread-safe."""

    limit: int = KEPT
    clock: Clock = REAL
    _data: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _credit: float = attrs.field(default=PATIENCE_S, init=False)  # seconds that the guest may wait
    _since: float | None = attrs.field(default=None, init=False)  # when it began to, or was last looked at

    def __len__(self) -> int:
        return len(self._data)

    @property
    def room(self) -> int:
        """How many bytes ``append`` takes before it drops any."""
        return self.limit - len(self._data)

    def patience(self) -> float:
        """How many seconds more the guest may wait for room; 0 when the oldest bytes have to go instead.

        From the first call on the guest waits, until ``took`` or ``append``.
        """
        self._charge()
        self._since = self.clock.monotonic()
        return self._credit

    def append(self, data: bytes | memoryview) -> int:
        """Keep *data*, at most ``limit`` bytes; returns how many bytes it cost, the oldest, to have room for it."""
        cost = max(0, len(data) - self.room)
        self._data += data
        del self._data[:cost]
        self._charge()
        return cost

    def write(self, send: Send) -> None:
        """Offer what is kept to *send* until it takes no more."""
        while self._data:
            with memoryview(self._data) as view, view[:CHUNK] as part:
                taken = send([part])
            if not taken:
                return
            del self._data[:taken]
            self.took(taken)

    def took(self, count: int) -> None:
        """The reader has taken *count* bytes: the guest may wait for as long as a line would have needed for them."""
        self._charge()
        self._credit = min(PATIENCE_S, self._credit + count / RATE)

    def clear(self) -> int:
        """Throw away what is kept: its reader has gone. Returns how much it was."""
        count = len(self._data)
        self._data.clear()
        self._since, self._credit = None, PATIENCE_S
        return count

    def _charge(self) -> None:
        """Time that the guest has waited is spent."""
        if self._since is not None:
            self._credit -= self.clock.monotonic() - self._since
            self._since = None
        if self._credit < LEAST_S:
            self._credit = 0.0
