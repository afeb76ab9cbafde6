"""Functions of one process, each at a socket of its own with a client of its own, until somebody asks for the end.

Each has a main loop on a thread of its own: what a client has its function wait for, such as a reset with something in
flight, keeps no other waiting.
"""

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import frozen
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.export.running import Servable, run
from acrn_dm.export.sockets import Place
from acrn_dm.export.vfio_user.function import ExportedFunction
from acrn_dm.export.vfio_user.server import Server
from acrn_dm.pci.function import PciFunction


@frozen(kw_only=True, eq=False)
class Made:
    """A function, and whom its failures are blamed on."""

    function: PciFunction
    blamed: str


def serve(
    functions: Sequence[Made],
    at: Sequence[Place],
    *,
    dumped: bool,
    tells_writes: bool,
    last: bool,
    opened: Callable[[], None],
) -> None:
    """Serve each of *functions* at its place, until a signal comes or the one client of each connected socket is gone.

    *dumped* and *tells_writes* are as for ``ExportedFunction``. *last*: the process ends with this. *opened* is called
    when all functions are open, and before a client is listened to. Raises AcrnDmError.
    """
    main = IoLoop("main")
    with contextlib.ExitStack() as stack:
        stack.callback(main.close)
        exported = []
        for number, made in enumerate(functions):
            loop = IoLoop(f"client{number}")
            stack.callback(loop.close)
            exported.append(
                ExportedFunction(made.function, loop, main.stop, dumps_memory=dumped, tells_writes=tells_writes)
            )
            stack.callback(exported[-1].close)

        def resized() -> None:
            for each in exported:
                each.main_loop.call_soon(each.window_changed)

        stack.enter_context(signals_to(main.stop, resized, last=last))
        run([_servable(*each) for each in zip(functions, exported, strict=True)], at, main, opened)


def _servable(made: Made, function: ExportedFunction) -> Servable:
    return Servable(blamed=made.blamed, open=function.open, serve=functools.partial(_served, function))


@contextlib.contextmanager
def _served(function: ExportedFunction, given: socket.socket, done: Callable[[], None]) -> Iterator[None]:
    """Clients are served on the loop of *function* while the block runs."""
    loop, servers, closed = function.main_loop, contextlib.ExitStack(), threading.Event()

    def close() -> None:
        servers.close()
        closed.set()

    loop.call_soon(lambda: servers.callback(Server(function, given, done).close))
    loop.start()
    try:
        yield
    finally:
        loop.call_soon(close)
        closed.wait()
        loop.stop()
