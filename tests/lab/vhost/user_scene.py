"""The processes of the outer VM that serve a guest's disk and console by vhost-user."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT
from tests.lab.stemmed import STEM_S, Stemmed

DISK, CONSOLE, PORT, IMAGE = "/run/lab-disk.sock", "/run/lab-console.sock", "/run/lab-port.sock", "/run/lab-disk.img"
DISK_MIB = 32
DAEMON, EXPORTER = "qemu-storage-daemon", "acrn_dm.export.vhost_user.cli"


@attrs.define(eq=False)
class Backends:
    """QEMU's storage daemon with a disk, and our console."""

    vm: OuterVm
    disk: GuestProcess
    console: GuestProcess

    def replace_daemon(self) -> None:
        """Kill the disk's process; the next one finds what it owed."""
        self.disk.signal(signal.SIGKILL)
        self.disk.wait(20)
        self.vm.run(f"rm -f {DISK}")
        self.disk = storage_daemon(self.vm)

    def image_digest(self, skip_mib: int, mib: int) -> str:
        """Of a part of the image behind the disk."""
        command = f"dd if={IMAGE} bs=1M skip={skip_mib} count={mib} 2> /dev/null | sha256sum"
        return self.vm.run(command).stdout.split()[0]


def storage_daemon(vm: OuterVm, image: str = IMAGE, socket: str = DISK) -> GuestProcess:
    """Serves *image* at *socket*, soon."""
    export = f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on"
    blockdev = f"driver=file,node-name=disk,filename={image}"
    return vm.spawn([DAEMON, "--blockdev", blockdev, "--export", export])


@contextmanager
def serving(vm: OuterVm) -> Iterator[Backends]:
    """Both of them, and the disk's image, of noise."""
    vm.run(f"dd if=/dev/urandom of={IMAGE} bs=1M count={DISK_MIB}")
    program = [sys.executable, "-m", EXPORTER, "console", f"--socket-path={CONSOLE}"]
    console = Stemmed(vm).spawn([*program, f"socket:bulk={PORT}:server"], cwd=ROOT)
    backends = Backends(vm, storage_daemon(vm), console)
    result = vm.run(f"until [ -S {DISK} ] && [ -S {CONSOLE} ] && [ -S {PORT} ]; do sleep 0.2; done", timeout=STEM_S)
    assert result.rc == 0, backends.disk.stderr + backends.console.stderr
    yield backends
    backends.console.signal(signal.SIGTERM)
    assert backends.console.wait(20).rc == 0, backends.console.stderr
    backends.disk.signal(signal.SIGTERM)
    backends.disk.wait(20)
    vm.run(f"rm -f {IMAGE} {DISK}")
