"""The reset control register, port 0xCF9: bit 2 resets the machine, bit 3 makes that a full reset (0x06, 0x0E)."""

from collections.abc import Callable

RESET_CPU = 0x04
FULL_RESET = 0x08


class ResetControl:
    """The port, which is also the FADT's reset register. As in the original a full reset needs no bit 2."""

    def __init__(self, on_reset: Callable[[bool], None]) -> None:
        self._on_reset = on_reset
        self._value = 0

    def reset(self) -> None:
        """Power-on state."""
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """What was written last."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Store, and reset when asked to."""
        self._value = value & 0xFF
        if value & FULL_RESET:
            self._on_reset(True)
        elif value & RESET_CPU:
            self._on_reset(False)
