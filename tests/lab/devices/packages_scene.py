"""The guest of packages in ``plugins/`` and of devices in strict sandboxes, and the outer VM around acrn-dm."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from acrn_dm.testing.guest import Guest
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT
from tests.lab.stemmed import PLAIN, STEM_S, Stemmed

MIB = 1 << 20
MODULES = ("virtio_balloon", "uio_pci_generic", "nd_pmem", "virtio_pmem", "virtio_blk")
BALLOON, FILE = "/tmp/packages-balloon", "/tmp/packages-pmem"
CARD, DISK, IMAGE = "/tmp/packages-card", "/tmp/packages-disk", "/tmp/packages-image"  # of the other processes
FILED, PAGES, ACCESSES = "/run/packages-filed", "/run/packages-pages", "/run/packages-accesses"  # of a third one
_EXPORT = ("-m", "acrn_dm.export.cli", "vfio-user")
SERVED = {
    CARD: (*_EXPORT, "edu", f"--socket-path={CARD}"),
    DISK: (*_EXPORT, f"virtio-blk,{IMAGE}", f"--socket-path={DISK}"),
    FILED: ("-m", "tests.lab.devices.filed_card", FILED, PAGES, ACCESSES),
}
DEVICES = (
    f"virtio-balloon,control={BALLOON}",
    f"virtio-pmem,file={FILE},size=32M",
    f"vfio-user,socket={CARD}",
    f"vfio-user,socket={DISK}",
    f"vfio-user,socket={FILED}",
)
FIRST_SLOT = 3
SAY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect(sys.argv[1])
    for line in sys.argv[2:]:
        control.sendall(line.encode() + b"\\n")
        print(control.makefile().readline(), end="")
"""
PATIENCE_S = 60.0
SOURCE = b"what the host has in this file. "


class Scene:
    """The guest, the outer VM around acrn-dm, and the devices from ``FIRST_SLOT`` on."""

    def __init__(self, vm: OuterVm, guest: Guest, devices: "list[str]") -> None:
        self.vm, self.guest, self.run, self.devices = vm, guest, guest.run, devices

    def say(self, control: str, *lines: str) -> list[str]:
        """What a device answers to *lines*."""
        return self.outside(*PLAIN, SAY, control, *lines).splitlines()

    def outside(self, *command: str) -> str:
        """The output of a command beside acrn-dm."""
        done = self.vm.run(command)
        assert done.rc == 0, done.stderr
        return done.stdout

    def resident(self) -> int:
        """Bytes of guest memory that acrn-dm has: nobody else there shares so much."""
        lines = self.outside("sh", "-c", "cat /proc/[0-9]*/status 2> /dev/null; true").splitlines()
        return max(int(line.split()[1]) for line in lines if line.startswith("RssShmem:")) << 10

    def slot(self, name: str) -> int:
        """Where the device is whose text begins with *name*."""
        return FIRST_SLOT + next(at for at, text in enumerate(self.devices) if text.startswith(name))


@contextmanager
def served(vm: OuterVm) -> Iterator[None]:
    """The other processes."""
    vm.run(f"dd if=/dev/zero of={IMAGE} bs=1M count=4; printf 'of another process' | dd of={IMAGE} conv=notrunc")
    stemmed = Stemmed(vm)
    running = [stemmed.spawn([sys.executable, *program], cwd=ROOT) for program in SERVED.values()]
    there = " && ".join(f"[ -S {path} ]" for path in SERVED)
    found = vm.run(f"until {there}; do sleep 0.2; done", timeout=STEM_S)
    assert found.rc == 0, [process.stderr for process in running]
    yield
    for process in running:
        process.signal(signal.SIGTERM)
        assert process.wait(20).rc == 0, process.stderr


def eventually(what: Callable[[], bool], told: Callable[[], object]) -> None:
    """Wait for what comes true in a guest that is emulated."""
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, told()
        time.sleep(0.2)
