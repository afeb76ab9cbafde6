"""The keyboard controller (8042) at ports 0x60 and 0x64, with nothing plugged in, or a keyboard for firmware.

Guests look for it, some reset the machine through it. A byte for a keyboard that is not there is answered as real
controllers do when its clock never moves: 0xFE with the time-out bit, so that a driver's probe ends at once instead of
waiting. There is no auxiliary (mouse) port.
"""

import threading
from collections.abc import Callable

from acrn_dm.devices.platform.ps2_keyboard import Ps2Keyboard

STATUS_OUTPUT = 0x01  # a byte waits at 0x60
STATUS_SYSTEM = 0x04
STATUS_COMMAND = 0x08  # the last write went to 0x64
STATUS_UNLOCKED = 0x10
STATUS_AUX = 0x20
STATUS_TIMEOUT = 0x40

MODE_INTERRUPT = 0x01
MODE_SYSTEM = 0x04
MODE_KEYBOARD_OFF = 0x10
MODE_AUX_OFF = 0x20
MODE_TRANSLATE = 0x40
POWER_ON_MODE = MODE_INTERRUPT | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE

READ_RAM, WRITE_RAM = 0x20, 0x60  # + address 0..0x1F; address 0 is the mode byte
TEST_AUX, SELF_TEST, TEST_KEYBOARD, KEYBOARD_OFF, KEYBOARD_ON = 0xA9, 0xAA, 0xAB, 0xAD, 0xAE
READ_INPUT, READ_OUTPUT, WRITE_OUTPUT, PUT_KEYBOARD, PUT_AUX, SEND_AUX = 0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4
PULSE_RESET = 0xFE
OUTPUT_RUN = 0x03  # output port: not in reset, A20 on

SELF_TEST_PASSED = 0x55
INTERFACE_GOOD = 0x00
INTERFACE_CLOCK_LOW = 0x01  # what the test of a port that is not there finds
RESEND = 0xFE


class KeyboardController:
    """``data`` answers port 0x60, ``control`` port 0x64."""

    def __init__(
        self, set_irq: Callable[[bool], None], on_reset: Callable[[], None], keyboard: Ps2Keyboard | None = None
    ) -> None:
        self._set_irq = set_irq
        self._keyboard = keyboard
        self._on_reset = on_reset
        self._lock = threading.Lock()
        self.data = DataPort(self)
        self.control = ControlPort(self)
        self._fixed: dict[int, int] = {
            TEST_AUX: INTERFACE_CLOCK_LOW,
            TEST_KEYBOARD: INTERFACE_GOOD,
            READ_INPUT: 0,
        }
        self._command: int | None = None  # waits for its argument
        self._power_on()

    def reset(self) -> None:
        """Power-on state."""
        with self._lock:
            self._power_on()
            self._set_irq(False)

    def read_data(self) -> int:
        """Take the waiting byte; without one, the last one again."""
        with self._lock:
            self._status &= ~(STATUS_OUTPUT | STATUS_AUX | STATUS_TIMEOUT)
            self._set_irq(False)
            value = self._output
            self._take_from_keyboard()
            return value

    def read_status(self) -> int:
        """The status register."""
        with self._lock:
            system = STATUS_SYSTEM if self._ram[0] & MODE_SYSTEM else 0
            return self._status | system | STATUS_UNLOCKED

    def write_data(self, value: int) -> None:
        """The argument of a command, or a byte for the keyboard."""
        with self._lock:
            command, self._command = self._command, None
            self._status &= ~STATUS_COMMAND
            if command is None:
                self._ram[0] &= ~MODE_KEYBOARD_OFF  # sending enables the interface
                self._send(value)
            elif WRITE_RAM <= command < WRITE_RAM + len(self._ram):
                # Without the port its "off" bit can't be cleared, which tells a driver so.
                self._ram[command - WRITE_RAM] = value | (MODE_AUX_OFF if command == WRITE_RAM else 0)
            elif command == WRITE_OUTPUT:
                self._output_port = value
            elif command in (PUT_KEYBOARD, PUT_AUX):
                self._put(value)
            else:
                self._put(RESEND, STATUS_TIMEOUT | STATUS_AUX)

    def write_command(self, value: int) -> None:
        """A command for the controller; unknown ones do nothing."""
        with self._lock:
            self._status |= STATUS_COMMAND
            self._command = None
            if READ_RAM <= value < READ_RAM + len(self._ram):
                self._put(self._ram[value - READ_RAM])
            elif WRITE_RAM <= value < WRITE_RAM + len(self._ram) or WRITE_OUTPUT <= value <= SEND_AUX:
                self._command = value
            elif value in self._fixed:
                self._put(self._fixed[value])
            elif value == SELF_TEST:
                self._put(SELF_TEST_PASSED)
            elif value == READ_OUTPUT:
                self._put(self._output_port)
            elif value in (KEYBOARD_OFF, KEYBOARD_ON):
                off = MODE_KEYBOARD_OFF if value == KEYBOARD_OFF else 0
                self._ram[0] = self._ram[0] & ~MODE_KEYBOARD_OFF | off
                self._take_from_keyboard()
        if value == PULSE_RESET:
            self._on_reset()

    def _send(self, value: int) -> None:
        """A byte for the keyboard."""
        if self._keyboard is None:
            self._put(RESEND, STATUS_TIMEOUT)
            return
        self._keyboard.command(value)
        self._take_from_keyboard()

    def _take_from_keyboard(self) -> None:
        """The next byte of the keyboard's, once the one before was read and the interface is on."""
        if self._keyboard is None or self._status & STATUS_OUTPUT or self._ram[0] & MODE_KEYBOARD_OFF:
            return
        if self._keyboard.output:
            self._put(self._keyboard.output.popleft())

    def _power_on(self) -> None:
        if self._keyboard is not None:
            self._keyboard.reset()
        self._ram = bytearray(32)
        self._ram[0] = POWER_ON_MODE
        self._status = 0
        self._output = 0
        self._output_port = OUTPUT_RUN
        self._command = None

    def _put(self, value: int, flags: int = 0) -> None:
        self._output = value
        self._status = self._status & ~(STATUS_AUX | STATUS_TIMEOUT) | STATUS_OUTPUT | flags
        if self._ram[0] & MODE_INTERRUPT:
            self._set_irq(False)
            self._set_irq(True)


class DataPort:
    """Port 0x60."""

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        """IN."""
        return self._controller.read_data()

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT."""
        self._controller.write_data(value)


class ControlPort:
    """Port 0x64."""

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        """IN."""
        return self._controller.read_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT."""
        self._controller.write_command(value)
