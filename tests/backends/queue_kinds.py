"""Queues of each kind that there is, in a driver's hands: served in Python, in C, and by another process, which notes
what is in flight, is watched, or is behind a relay.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.wire.message import ProtocolFeature
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.devices import virtio_blk
from acrn_dm.export.vhost_user import client
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.server import Server
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue
from tests.backends.user.user_rig import eventually
from tests.export.made import made
from tests.virtio.parts import SLOT, Echo

SETTLED = 3  # rounds of a machine's loops in which nothing is to happen, where another thread may have something to do


class InC(Echo):
    """All of its queues are served by a plane."""

    def plane(self, features: int, queue: Queue) -> EchoPlane:
        return EchoPlane()


@attrs.define(eq=False)
class QueueKind:
    """One machine with one device whose queue 0 is of this kind. *written* is what it says of a request of
    ``hostile_rows``. *elsewhere*: other threads have a part in it.
    """

    machine: SimMachine
    written: int
    elsewhere: bool = False
    driver: VirtioDriver = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.driver = self.machine.driver(SLOT)

    def wait(self, done: Callable[[], bool]) -> bool:
        """Let the device work; whether *done* came true."""
        self.machine.settle()
        if self.elsewhere and not done():
            eventually(self.machine, done)
        return done()

    def rest(self) -> None:
        """Let it work until it has nothing to do any more."""
        for _ in range(SETTLED):
            self.machine.settle()


@contextlib.contextmanager
def in_python(folder: Path) -> Iterator[QueueKind]:
    """By a device's ``handle_queue``."""
    with SimMachine() as machine:
        machine.add(Echo, slot=SLOT)
        yield QueueKind(machine, 16)


@contextlib.contextmanager
def in_c(folder: Path) -> Iterator[QueueKind]:
    """By a plane."""
    with SimMachine() as machine:
        machine.add(InC, slot=SLOT)
        yield QueueKind(machine, 16)


@contextlib.contextmanager
def served(device: VirtioDevice, path: Path) -> Iterator[ExportedDevice]:
    """A device that is served at the socket *path*, by a loop's thread."""
    loop = IoLoop("main")
    exported = ExportedDevice(device, loop)
    with contextlib.closing(UnixListener(path, "socket")) as listener:
        exported.open()
        server = Server(exported, listener.socket, loop.stop)
        loop.start()
        try:
            yield exported
        finally:
            loop.stop()
            server.close()
            exported.close()
            loop.close()


@contextlib.contextmanager
def elsewhere(folder: Path, *, native: bool = True, options: str = "") -> Iterator[QueueKind]:
    """By a disk that is served over vhost-user, and notes what is in flight."""
    image, path = folder / "image", folder / "s"
    image.write_bytes(bytes(1 << 16))
    disk = made(f"virtio-blk,{image}")
    with served(disk, path), SimMachine(plugins=[virtio_blk, vhost_user], native=native) as machine:
        machine.add("virtio-blk", f"vhost-user={path}{options}", slot=SLOT)
        yield QueueKind(machine, 21, elsewhere=True)


def without_notes(exported: ExportedDevice, offered: Callable[[ExportedDevice], ProtocolFeature]) -> ProtocolFeature:
    """What another program's process offers that takes none."""
    return offered(exported) & ~ProtocolFeature.INFLIGHT_SHMFD


def known_here(
    options: str, *, native: bool = True
) -> Callable[[Path], "contextlib.AbstractContextManager[QueueKind]"]:
    """By a disk that takes no notes, and whose rings are watched, or relayed, in C or in Python."""

    @contextlib.contextmanager
    def make(folder: Path) -> Iterator[QueueKind]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_offered", functools.partial(without_notes, offered=client._offered))
            with elsewhere(folder, native=native, options=options) as kind:
                yield kind

    return make


KINDS = {
    "python": in_python,
    "plane": in_c,
    "noted": elsewhere,
    "watched": known_here(""),
    "relay": known_here(",relay=on"),
    "relay_in_python": known_here(",relay=on", native=False),
}
