"""Transfers in pieces, so that a request that nobody waits for any more ends soon, however long it is.

A thread at a system call can't be called back; between two calls it looks whether it is still wanted. A guest may ask
for 4 GiB at once, of a file that is all hole; no real driver asks for more than a piece.
"""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

PIECE_BYTES = 4 << 20
IOV_MAX = 1024  # vectors of one preadv or pwritev

Views = Sequence[memoryview]  # of guest memory or of ours
Transfer = Callable[[Views, int], int]  # (views, offset) -> bytes moved

_work = threading.local()  # of this thread: ``wanted``


@contextmanager
def given_up_unless(wanted: Callable[[], bool]) -> Iterator[None]:
    """Let what this thread transfers in the block end between two pieces when *wanted* says no."""
    _work.wanted = wanted
    try:
        yield
    finally:
        del _work.wanted


def require_wanted() -> None:
    """Raise OSError ECANCELED if nobody waits for this thread's work any more."""
    wanted = getattr(_work, "wanted", None)
    if wanted is not None and not wanted():
        raise OSError(errno.ECANCELED, "the driver has reset the device")


def total(views: Views) -> int:
    """Bytes in all of *views*."""
    return sum(len(view) for view in views)


def before(views: Views, length: int) -> list[memoryview]:
    """The first *length* bytes of *views*, or all there are."""
    piece: list[memoryview] = []
    for view in views:
        if not length:
            break
        piece.append(view[:length])
        length -= len(piece[-1])
    return piece


def after(views: Views, skip: int) -> list[memoryview]:
    """*views* without their first *skip* bytes."""
    whole = 0
    for view in views:
        if skip < len(view):
            break
        skip -= len(view)
        whole += 1
    rest = list(views[whole:])
    if skip:
        rest[0] = rest[0][skip:]
    return rest


def first_piece(views: Views) -> Views:
    """The beginning of *views*, as much as one call is given."""
    views = views[:IOV_MAX]
    return views if total(views) <= PIECE_BYTES else before(views, PIECE_BYTES)


def transfer_all(call: Transfer, views: Views, offset: int) -> None:
    """Repeat *call* until all of *views* is moved, however short each call is. Raises OSError."""
    while views:
        require_wanted()
        moved = call(first_piece(views), offset)
        if moved == 0:
            raise OSError(errno.EIO, "the image ends before the transfer does")
        offset += moved
        views = after(views, moved)


def scatter(source: memoryview, views: Views) -> None:
    """Copy *source* to the first bytes of *views*."""
    at = 0
    for view in views:
        step = min(len(view), len(source) - at)
        view[:step] = source[at : at + step]
        at += step


def gather(views: Views, target: memoryview) -> None:
    """Fill *target* from the first bytes of *views*."""
    at = 0
    for view in views:
        step = min(len(view), len(target) - at)
        target[at : at + step] = view[:step]
        at += step
