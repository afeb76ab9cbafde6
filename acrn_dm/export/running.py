"""The run of a process that serves devices, each at a socket of its own, until it is told to end or all are done."""

import contextlib
import functools
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import frozen
from acrn_dm.contract.plugins import blame
from acrn_dm.export.sockets import Place


@frozen(kw_only=True, eq=False)
class Servable:
    """A device: *open* opens its own files, and its failures are *blamed* on somebody; *serve* serves clients at a
    socket for as long as it is entered, and calls what it is given when there will be no other.
    """

    blamed: str
    open: Callable[[], None]
    serve: Callable[[socket.socket, Callable[[], None]], AbstractContextManager[object]]


def run(servables: Sequence[Servable], at: Sequence[Place], loop: IoLoop, opened: Callable[[], None]) -> None:
    """Serve each of *servables* at its place while *loop* runs, which the last one that is done stops. *opened* is
    called when all are open, and before a client is listened to. Raises AcrnDmError.
    """
    serving = set(range(len(servables)))

    def done(number: int) -> None:
        serving.discard(number)
        if not serving:
            loop.stop()

    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(place.open()) for place in at]
        for servable in servables:
            with blame(servable.blamed):
                servable.open()
        opened()
        for number, (servable, given) in enumerate(zip(servables, sockets, strict=True)):
            stack.enter_context(servable.serve(given, functools.partial(done, number)))
        loop.run()
