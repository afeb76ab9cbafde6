"""Progress for whoever waits: a line when a step lasts longer than two seconds, and now and then until it is done."""

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]

PATIENCE_S, EVERY_S = 2.0, 15.0
_SHOWN_BY: contextvars.ContextVar[Say | None] = contextvars.ContextVar("shown_by", default=None)


@contextlib.contextmanager
def shown_by(say: Say | None) -> Iterator[None]:
    """Have the steps below told to *say*, a line each, from another thread. Without it nobody hears of them."""
    token = _SHOWN_BY.set(say)
    try:
        yield
    finally:
        _SHOWN_BY.reset(token)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """*what* is done here: told when it lasts, and how long it took if it was told of."""
    say = _SHOWN_BY.get()
    if say is None:
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, say, over), name="guest-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, say: Say, over: threading.Event) -> None:
    started, pause = time.monotonic(), PATIENCE_S
    while not over.wait(pause):
        say(f"{what} ({time.monotonic() - started:.0f} s so far)")
        pause = EVERY_S
    if pause == EVERY_S:
        say(f"{what}: {time.monotonic() - started:.0f} s")
