"""A stock guest under QEMU whose root file system is a disk: QEMU's own, or one of a process of ours over vfio-user."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.kernels.packages import system_tool
from acrn_dm.testing.guest.served.machine import vfio_user
from lab.images.rootdisk import NOISE, SUMS, root_disk, root_initramfs
from lab.qemu.guest import QemuGuest

CPUS = 2
START_S = 60.0
STOP_S = 30.0
WORK_S = 600.0  # on a host that has other things to do
DROP = "sync; echo 3 > /proc/sys/vm/drop_caches"

Disk = Callable[[Path, Path], "contextlib.AbstractContextManager[Sequence[str]]"]  # of an image, with a folder for it


@attrs.frozen(kw_only=True)
class Root:
    """What each boot begins with, and the words that start QEMU."""

    kernel: Kernel
    qemu: Sequence[str]
    image: Path  # as it was made; each boot has a copy
    initramfs: Path

    @classmethod
    def made(
        cls, kernel: Kernel, qemu: Sequence[str], folder: Path, files: Mapping[str, bytes] | None = None
    ) -> "Root":
        """Its image is in *folder*, and has *files* besides. Raises HarnessUnavailable."""
        image = folder / "root"
        root_disk(image, kernel, files=files)
        return cls(kernel=kernel, qemu=qemu, image=image, initramfs=root_initramfs(kernel))


@attrs.frozen(kw_only=True)
class Boot:
    """What was said in one: by the kernel (``dmesg -r``), by QEMU, and by the process that serves the disk."""

    kernel: str
    qemu: str
    server: str
    seconds: float  # until the guest was up


def use(guest: QemuGuest) -> str:
    """Have the guest read its root again, write to it and execute what is on it, on each CPU at once; then what its
    kernel said, with nothing more to be written. Raises CommandFailed for what is not as it was.
    """
    guest.run("mount -t tmpfs tmpfs /tmp")
    guest.run("grep -q '^/dev/vda / ext4 rw' /proc/mounts")
    guest.run(f"{DROP}; busybox sha256sum -c -s /{SUMS}", WORK_S)
    work = (
        f"mkdir /var/$1; cp /{NOISE} /var/$1/noise; bash -c 'tar -C / -cf /var/$1/all bin lib modules' - $1; {DROP}; "
        f"cmp /{NOISE} /var/$1/noise && bash -c 'tar -C / -df /var/$1/all' - $1"
    )
    started = "; ".join(f'taskset -c {cpu} sh -c "$work" - {cpu} & pid{cpu}=$!' for cpu in range(CPUS))
    waited = " && ".join(f"wait $pid{cpu}" for cpu in range(CPUS))
    guest.run(f"work={_quoted(work)}; {started}; {waited}", WORK_S)
    guest.run(f"{DROP}; busybox sha256sum -c -s /{SUMS}; mount -o remount,ro /", WORK_S)
    return guest.run("dmesg -r")


def boot(root: Root, folder: Path, disk: Disk, use: Callable[[QemuGuest], str] = use) -> Boot:
    """Boot from a copy of the image in *folder*, *use* it, and let it go. Raises HarnessError for what is not as it was
    written, in the guest or in the image.
    """
    image = folder / "disk"
    shutil.copyfile(root.image, image)
    (folder / "server").write_text("")
    began = time.monotonic()
    with disk(image, folder) as words:
        guest = QemuGuest.boot_image(
            root.kernel.quick_image,
            root.initramfs,
            folder,
            words,
            qemu=root.qemu,
            cpus=CPUS,
            board="q35",
            append="root=/dev/vda",
        )
        try:
            seconds = time.monotonic() - began
            said = use(guest)
        finally:
            guest.end()
    _check(image)
    server = (folder / "server").read_text(errors="replace")
    return Boot(kernel=said, qemu=guest.process.stderr, server=server, seconds=seconds)


@contextlib.contextmanager
def qemu_disk(image: Path, folder: Path) -> Iterator[Sequence[str]]:
    """QEMU's own virtio-blk, with as many queues."""
    yield [
        *("-drive", f"file={image},format=raw,if=none,id=root"),
        *("-device", f"virtio-blk-pci,drive=root,num-queues={CPUS}"),
    ]


@contextlib.contextmanager
def our_disk(image: Path, folder: Path) -> Iterator[Sequence[str]]:
    """A process of ours, which tells QEMU of its writes; it has to end with 0 when it is asked to."""
    path = folder / "root.sock"
    path.unlink(missing_ok=True)
    words = ["vfio-user", f"virtio-blk,mq={CPUS},{image}", f"--socket-path={path}", "--tell-writes"]
    with (folder / "server").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "acrn_dm.export.cli", *words], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise HarnessError(f"no disk is served: {(folder / 'server').read_text(errors='replace')}")
            time.sleep(0.02)
        yield vfio_user("root", folder)
        process.terminate()
        if process.wait(STOP_S):
            raise HarnessError(f"the disk's process ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _check(image: Path) -> None:
    done = subprocess.run([system_tool("e2fsck"), "-f", "-n", str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"the file system is broken: {done.stdout}{done.stderr}")
