"""A PS/2 keyboard that nobody types on: it answers commands, and never has a key to tell.

Firmware waits a second for each byte of a keyboard that is not there; so with firmware there is one. Source: IBM PS/2
Technical Reference, keyboard section; scan code set 2.
"""

from collections import deque

ACK, RESEND, SELF_TEST_PASSED, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
SET_LEDS, SCAN_CODE_SET, IDENTIFY, RATE = 0xED, 0xF0, 0xF2, 0xF3
ENABLE, DISABLE, DEFAULTS, RESET = 0xF4, 0xF5, 0xF6, 0xFF
IDENTITY = (0xAB, 0x83)
MAX_QUEUE = 16  # what a keyboard's buffer holds


class Ps2Keyboard:
    """``command`` takes a byte from the controller; the answers are in ``output``. Not locked."""

    def __init__(self) -> None:
        self.output: deque[int] = deque(maxlen=MAX_QUEUE)
        self._expects: int | None = None  # the command whose argument comes next
        self._set = 2

    def reset(self) -> None:
        """Power-on state."""
        self.output.clear()
        self._expects, self._set = None, 2

    def command(self, value: int) -> None:
        """A byte from the controller: a command or its argument."""
        expects, self._expects = self._expects, None
        if expects is not None and value < SET_LEDS:
            self._argument(expects, value)
        elif value in (SET_LEDS, SCAN_CODE_SET, RATE):
            self._expects = value
            self.output.append(ACK)
        elif value in (ENABLE, DISABLE):
            self.output.append(ACK)
        elif value == DEFAULTS:
            self._set = 2
            self.output.append(ACK)
        elif value == RESET:
            self.reset()
            self.output.extend((ACK, SELF_TEST_PASSED))
        elif value == IDENTIFY:
            self.output.extend((ACK, *IDENTITY))
        elif value == ECHO:
            self.output.append(ECHO)
        else:
            self.output.append(RESEND)

    def _argument(self, command: int, value: int) -> None:
        self.output.append(ACK)
        if command == SCAN_CODE_SET:
            if value == 0:
                self.output.append(self._set)
            elif value in (1, 2, 3):
                self._set = value
