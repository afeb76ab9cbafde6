"""What of the shared guest's devices other programs are: virtiofsd, and a source of entropy of ours that is served."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT
from tests.lab.stemmed import STEM_S, Stemmed

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
SHARED, FS, TAG = "/run/lab-shared", "/run/lab-fs.sock", "shared"
ENTROPY = "/run/lab-entropy.sock"
MODULES = ["virtiofs"]


def devices() -> list[str]:
    """Their slots."""
    return [
        *("-s", f"11,virtio-fs,socket={FS},tag={TAG}"),
        *("-s", f"12,vhost-user-device,id=4,queues=1,socket={ENTROPY}"),
    ]


def virtiofsd(vm: OuterVm) -> GuestProcess:
    """Serves the folder, soon; with the shared files of the outer VM's memory, as any other process has them."""
    return vm.spawn([VIRTIOFSD, f"--socket-path={FS}", "-o", f"source={SHARED},sandbox=chroot,cache=none"])


@contextmanager
def serving(vm: OuterVm) -> Iterator[None]:
    """Both of them."""
    vm.run(f"mkdir -p {SHARED}")
    program = [sys.executable, "-m", "acrn_dm.export.cli", "vhost-user", "virtio-rnd", f"--socket-path={ENTROPY}"]
    daemon, entropy = virtiofsd(vm), Stemmed(vm).spawn(program, cwd=ROOT)
    result = vm.run(f"until [ -S {FS} ] && [ -S {ENTROPY} ]; do sleep 0.2; done", timeout=STEM_S)
    assert result.rc == 0, daemon.stderr + entropy.stderr
    yield
    entropy.signal(signal.SIGTERM)
    assert entropy.wait(20).rc == 0, entropy.stderr
    daemon.signal(signal.SIGTERM)
    daemon.wait(20)
    vm.run(f"rm -rf {SHARED} {FS}")
