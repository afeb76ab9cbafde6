"""Devices of one process, each at a socket of its own with a client of its own, until somebody asks for the end.

What a client makes its device do happens on loops of that device; only its requests are served on the main loop, some
at a time.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.process.stderr import StderrHandler
from acrn_dm.devices.terminal.signals import signals_to
from acrn_dm.export.making import Made
from acrn_dm.export.running import Servable, run
from acrn_dm.export.sockets import Place
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.server import Server
from acrn_dm.virtio.optional import WindowWatcher

SWITCH_INTERVAL_S = 0.0005  # two Python threads at most are busy: main loop and I/O loop


def log_to_stderr(program: str, *, verbose: bool) -> None:
    """Have records go there: warnings, or all."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[StderrHandler(program)])


def serve(
    devices: Sequence[Made],
    at: Sequence[Place],
    *,
    dumped: bool,
    last: bool,
    opened: Callable[[], None] = lambda: None,
) -> None:
    """Serve each of *devices* at its place, until a signal comes or the one client of each connected socket is gone.

    *dumped*: core dumps have the clients' memory. *last*: the process ends with this. *opened* is called when all
    devices are open, and before a client is listened to. Raises AcrnDmError.
    """
    loop = IoLoop("main")
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        exported = [_exported(made, loop, stack, dumped=dumped) for made in devices]
        watchers = [e.device for e in exported if isinstance(e.device, WindowWatcher)]

        def resized() -> None:
            for watcher in watchers:
                loop.call_soon(watcher.window_changed)

        stack.enter_context(signals_to(loop.stop, resized, last=last))
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        run([_servable(*each) for each in zip(devices, exported, strict=True)], at, loop, opened)


def _exported(made: Made, loop: IoLoop, stack: contextlib.ExitStack, *, dumped: bool) -> ExportedDevice:
    exported = ExportedDevice(made.device, loop, quit_=loop.stop, dumps_memory=dumped)
    stack.callback(exported.close)
    return exported


def _servable(made: Made, device: ExportedDevice) -> Servable:
    return Servable(
        blamed=made.blamed,
        open=device.open,
        serve=lambda given, done: contextlib.closing(Server(device, given, done)),
    )
