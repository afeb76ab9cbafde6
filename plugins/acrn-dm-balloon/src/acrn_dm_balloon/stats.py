"""Memory statistics as a guest gives them (virtio 5.5.6.3)."""

import struct
import time
from collections.abc import Callable

import attrs

ENTRY = struct.Struct("<HQ")  # struct virtio_balloon_stat, packed: tag, value
NAMES = (
    *("swap_in", "swap_out", "major_faults", "minor_faults", "free", "total", "available", "caches"),
    *("hugetlb_allocations", "hugetlb_failures", "oom_kills", "alloc_stalls", "scan_async", "scan_direct"),
    *("reclaim_async", "reclaim_direct"),
)
MOST = 64 * ENTRY.size  # bytes of one buffer that are read; there are fewer tags


@attrs.define(eq=False)
class Statistics:
    """The guest's last word. *clock* counts seconds."""

    values: dict[str, int] = attrs.field(factory=dict)
    clock: Callable[[], float] = time.monotonic
    _taken: float | None = None

    def take(self, data: bytes) -> None:
        """A buffer of the guest's: entries in any order. Unknown tags, and a piece at the end, are nothing."""
        whole = data[: len(data) // ENTRY.size * ENTRY.size]
        self.values = {NAMES[tag]: value for tag, value in ENTRY.iter_unpack(whole) if tag < len(NAMES)}
        self._taken = self.clock()

    def clear(self) -> None:
        """The guest is gone."""
        self.values, self._taken = {}, None

    def __str__(self) -> str:
        if self._taken is None:
            return "none yet"
        age = self.clock() - self._taken
        return " ".join([f"age={age:.1f}", *(f"{name}={value}" for name, value in sorted(self.values.items()))])
