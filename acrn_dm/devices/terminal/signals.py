"""Signals of a process that runs a guest: HUP, INT and TERM ask for its end, the others are job control.

They stay with us until everything is given back, so that no number of them ends the process half-way.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from acrn_dm.devices.terminal.line import open_lines

OFF = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
OF_BACKGROUND = (signal.SIGTTIN, signal.SIGTTOU)


@contextlib.contextmanager
def signals_to(off: Callable[[], None], resized: Callable[[], None], *, last: bool) -> Iterator[None]:
    """While the block runs, call *off* at each HUP, INT and TERM, and *resized* at WINCH. Main thread only.

    What our parent ignores stays ignored (nohup). A stop gives terminals back before and takes them again after it. In
    the background we are not stopped for looking at the terminal: nothing is read then.

    With *last* the process is about to end: HUP, INT and TERM are ignored from the end of the block on.
    """
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None] | signal.Handlers] = {
        **dict.fromkeys(OFF, lambda number, frame: off()),
        **dict.fromkeys(OF_BACKGROUND, signal.SIG_IGN),
        signal.SIGWINCH: lambda number, frame: resized(),
        signal.SIGTSTP: _stop,
        signal.SIGCONT: _continued,
    }
    handlers = {n: handler for n, handler in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last and number in (*OFF, *OF_BACKGROUND) else handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop as asked, with the terminal as it was for whoever has it meanwhile."""
    if not all(line.step_aside(_stop_again) for line in open_lines()):
        return
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # it is over when this returns
    signal.signal(signal.SIGTSTP, _stop)
    _continued(number, frame)  # also when nothing has stopped us: there is no shell that could go on


def _stop_again() -> None:
    os.kill(os.getpid(), signal.SIGTSTP)


def _continued(number: int, frame: FrameType | None) -> None:
    for line in open_lines():
        line.come_back()
