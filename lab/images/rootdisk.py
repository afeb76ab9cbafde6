"""A root file system on a disk, and the initramfs that goes over to it: as a distribution has it, whose kernel takes
drivers of disks and file systems from an initramfs.
"""

import hashlib
import random
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.images import cpio, initramfs
from acrn_dm.testing.guest.inner.initramfs import SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.kernels.packages import run_tool, system_tool

HERE = Path(__file__).resolve().parent
FIRST = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")  # modules that the root is reached by
THEN = ("virtio_console",)
PROGRAMS = ("bash", "tar")  # not linked statically: their libraries are there, too
NOISE, NOISE_MIB = "srv/noise", 8
SUMS = "lab/sums"  # of all files, as sha256sum has them


def root_disk(target: Path, kernel: Kernel, *, files: Mapping[str, bytes] | None = None, mib: int = 96) -> None:
    """Make *target* an ext4 of that size with *files* besides, which may be executed; its init does what a guest is
    told. Raises HarnessUnavailable.
    """
    entries = [
        *initramfs.base(guest_init(SHELL)),
        *_modules_behind(kernel),
        initramfs.settings({}),
        *initramfs.programs(PROGRAMS),
        *(cpio.file(path, content, 0o755) for path, content in (files or {}).items()),
        cpio.file(NOISE, random.Random(1).randbytes(NOISE_MIB << 20)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        _lay_out(Path(folder), [*entries, _sums(entries), cpio.directory("var")])
        target.unlink(missing_ok=True)
        run_tool(
            [system_tool("mke2fs"), "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", folder, str(target), f"{mib}m"]
        )


def root_initramfs(kernel: Kernel) -> Path:
    """It has what reaches the root that the kernel's command line names, and executes /init in there."""
    return guest_initramfs(kernel, init=guest_init(HERE / "rootdisk.sh"), modules=FIRST)


def _modules_behind(kernel: Kernel) -> list[cpio.Entry]:
    """What is loaded from the disk, in its order."""
    loaded = {entry.path for entry in initramfs.modules(kernel, FIRST)}
    files = [entry for entry in initramfs.modules(kernel, THEN) if entry.path not in loaded]
    order = "".join(f"{Path(entry.path).name}\n" for entry in files)
    return [*files, cpio.file("lab/modules", order.encode())]


def _sums(entries: Sequence[cpio.Entry]) -> cpio.Entry:
    files = {entry.path: entry.content for entry in entries if stat.S_ISREG(entry.mode)}
    lines = (f"{hashlib.sha256(content).hexdigest()}  /{path}\n" for path, content in files.items())
    return cpio.file(SUMS, "".join(lines).encode())


def _lay_out(folder: Path, entries: Sequence[cpio.Entry]) -> None:
    for entry in entries:
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(entry.mode):
            path.mkdir(exist_ok=True)
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.content.decode())
        else:
            path.write_bytes(entry.content)
            path.chmod(stat.S_IMODE(entry.mode))
