"""Common parts of the rules for a driver, whatever the format: guest memory that may be none, buffers of a chain."""

from collections.abc import Sequence
from typing import Any

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC_F_WRITE, RingMemory
from acrn_dm.ring.ring import Ring, Tell

MAX_CHAIN_BYTES = 1 << 32

Buffer = tuple[int, int, int]  # gpa, length, flags


class WatchedRing:
    """The ring *inner*, of which *tell* hears what its driver does wrong; a ``Ring`` itself."""

    def __init__(self, inner: Ring, memory: RingMemory, tell: Tell) -> None:
        self._inner = inner
        self._memory = memory
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _judge(self, buffers: Sequence[Buffer]) -> None:
        """The buffers of one chain."""
        writable = [bool(flags & DESC_F_WRITE) for _, _, flags in buffers]
        if sorted(writable) != writable:
            self._tell("desc.write_order", "a device-readable buffer behind a device-writable one")
        if sum(length for _, length, _ in buffers) > MAX_CHAIN_BYTES:
            self._tell("desc.total", f"{sum(length for _, length, _ in buffers)} bytes in a chain")
        for gpa, length, _ in buffers:
            ends = (gpa, gpa + length - 1) if length else ()
            if any(self._read(at, 1) is None for at in ends):
                self._tell("desc.address", f"{length} bytes at {gpa:#x}, which are not all memory")

    def _read(self, gpa: int, length: int) -> bytes | None:
        """Guest memory; None where it is none, which is the ring's to refuse."""
        try:
            return self._memory.read(gpa, length)
        except (GuestError, OverflowError):
            return None
