"""Devices of ours served as another process would, on a thread of their own; and drivers of what stands in for them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.making import make_device
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.server import Server
from acrn_dm.testing import SimMachine, VirtioDriver

SLOT = 6


@contextmanager
def served(text: str, path: Path) -> Iterator[None]:
    """The device of *text*, as ``acrn-dm-export vhost-user`` serves it at *path*."""
    with ExitStack() as stack:
        loop = IoLoop("served")
        stack.callback(loop.close)
        exported = ExportedDevice(make_device(text, make_plugin_manager(), program="test").device, loop)
        stack.callback(exported.close)
        exported.open()
        listener = UnixListener(path)
        stack.callback(listener.close)
        stack.callback(Server(exported, listener.socket, lambda: None).close)
        loop.start()
        stack.callback(loop.stop)
        yield


def foreign(machine: SimMachine, options: str, path: Path) -> VirtioDriver:
    """The driver of the device with *options* that stands for the one at *path*."""
    machine.add("vhost-user-device", f"{options},socket={path}", slot=SLOT)
    return machine.driver(SLOT)
