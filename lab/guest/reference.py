"""The yardstick: the same kernel and the same kinds of device under plain QEMU, in software, on this host."""

import subprocess
import tempfile
import time
from pathlib import Path

import attrs

from acrn_dm.testing.guest import qemu
from acrn_dm.testing.guest.command_line import CONSOLE
from acrn_dm.testing.guest.consoles import console_log
from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.places import exclusive, home

REFERENCE = Path(__file__).resolve().with_name("reference.sh")


def reference_log(kernel: Kernel) -> str:
    """What this kernel says under QEMU, as ``dmesg -r`` prints it; kept for each kernel and initramfs."""
    initramfs = guest_initramfs(kernel, init=guest_init(REFERENCE))
    kept = home() / "reference" / f"{kernel.tree.name}-{initramfs.stem}.dmesg"
    with exclusive():
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(boot_reference(kernel, initramfs).dmesg)
        return kept.read_text()


@attrs.frozen(kw_only=True)
class ReferenceBoot:
    dmesg: str  # as dmesg -r prints it
    seconds: float


def boot_reference(
    kernel: Kernel,
    initramfs: Path | None = None,
    *,
    memory_mib: int = 256,
    command_line: str = CONSOLE,
    timeout: float = 90.0,
) -> ReferenceBoot:
    """Boot under QEMU with virtio-blk, -net, -console and -rng until the guest powers off; return its kernel log.

    The initramfs, by default that of reference.sh, is to write its log to the virtio console port named "report".
    Raises HarnessTimeout past ``timeout`` seconds, HarnessError when there is no log.
    """
    initramfs = initramfs or guest_initramfs(kernel, init=guest_init(REFERENCE))
    console = console_log("reference")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report")
        disk = Path(scratch, "disk")
        with disk.open("wb") as file:
            file.truncate(4 << 20)
        arguments = [
            *("-machine", "pc,usb=off,vmport=off", "-accel", "tcg", "-cpu", "qemu64", "-m", str(memory_mib)),
            *("-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", command_line),
            *("-chardev", f"file,id=serial,path={console}", "-serial", "chardev:serial"),
            *("-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=disk"),
            *("-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-serial-pci", "-chardev", "null,id=con", "-device", "virtconsole,chardev=con"),
            *("-chardev", f"file,id=report,path={report}", "-device", "virtserialport,chardev=report,name=report"),
            *("-device", "virtio-rng-pci"),
        ]
        with qemu.running(arguments, log=console_log("reference-qemu")) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise HarnessTimeout(f"the reference guest stayed on; console: {console.read_text()}") from error
        dmesg = report.read_text(errors="replace") if report.exists() else ""
    if not dmesg:
        raise HarnessError(f"the reference guest reported no log; console: {console.read_text(errors='replace')}")
    return ReferenceBoot(dmesg=dmesg, seconds=time.monotonic() - started)
