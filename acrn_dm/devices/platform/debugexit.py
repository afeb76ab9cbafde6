"""The debug exit port, 0xF4 (``--debugexit``): a guest's test ends its machine with a code."""

from collections.abc import Callable


class DebugExit:
    """A write is the code; a read says that the port exists."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:
        """0xFFFF, cut to *size*."""
        return 0xFFFF & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Exit with *value*."""
        self._on_exit(value)
