"""The escape key: Ctrl-a x, typed at this process's terminal, asks for the machine's end."""

from collections.abc import Callable

CTRL_A = 0x01
QUIT = ord("x")


class EscapeFilter:
    """The watch for ``Ctrl-a x``, which ends the machine; everything else, Ctrl-a itself too, goes to the guest."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        self._on_quit = on_quit
        self._armed = False

    def __call__(self, data: bytes) -> bytes:
        passed = bytearray()
        for byte in data:
            if self._armed and byte == QUIT:
                self._on_quit()
            else:
                passed.append(byte)
            self._armed = byte == CTRL_A
        return bytes(passed)
