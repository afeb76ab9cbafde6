"""Signals of a running machine: HUP, INT and TERM press the power button, the second time they force the guest off."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

OFF = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Controlled(Protocol):
    """What signals do to a machine; both only queue work for its main loop."""

    def press_power_button(self) -> None:
        """Ask the guest to power off."""

    def window_changed(self) -> None:
        """The terminal has another size."""


@contextlib.contextmanager
def signals_to(machine: Controlled) -> Iterator[None]:
    """Route the signals to *machine* while the block runs. Main thread only."""

    def off(number: int, frame: FrameType | None) -> None:
        machine.press_power_button()

    def resized(number: int, frame: FrameType | None) -> None:
        machine.window_changed()

    before = {number: signal.signal(number, off) for number in OFF}
    before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
