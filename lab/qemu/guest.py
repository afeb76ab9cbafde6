"""A stock guest of QEMU's own, in software emulation on this host, whose devices are served by processes of ours."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.testing.guest.host import Host
from acrn_dm.testing.guest.inner.dialogue import Dialogue
from acrn_dm.testing.guest.inner.initramfs import GUEST_MODULES, SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.inner.shell import BOOT_LIMIT
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.process import Process
from acrn_dm.testing.guest.served.machine import command


@attrs.define(eq=False)
class QemuGuest:
    """A guest that does what it is told over a virtio console of QEMU's."""

    process: Process
    dialogue: Dialogue

    @classmethod
    def boot(
        cls,
        kernel: Kernel,
        folder: Path,
        devices: Sequence[str],
        *,
        programs: Sequence[str] = (),
        modules: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
        behind: bytes = b"",
        **machine: Any,
    ) -> "QemuGuest":
        """Start it with *devices*, words of QEMU's command line, and wait until it is up. It has *programs* of this
        host, *modules* beside the usual ones, *files*, and those of the archive *behind*; *machine* is as in
        ``command``. Raises HarnessError.
        """
        modules = [*GUEST_MODULES, *modules]
        initramfs = guest_initramfs(
            kernel, init=guest_init(SHELL), modules=modules, programs=programs, files=files, behind=behind
        )
        return cls.boot_image(kernel.quick_image, initramfs, folder, devices, **machine)

    @classmethod
    def boot_image(
        cls, image: Path, initramfs: Path, folder: Path, devices: Sequence[str], **machine: Any
    ) -> "QemuGuest":
        """The same with a ready *initramfs*, whose init is to answer as shell.sh does, or to lead to one that does."""
        serial = folder / "serial"
        process = Host().spawn([*command(image, initramfs, serial, **machine), *devices])

        def last_words() -> str:
            said = serial.read_text(errors="replace")[-2000:] if serial.exists() else ""
            return f"\nits kernel said last: {said}\nQEMU said last: {process.stderr[-2000:]}"

        guest = cls(process, Dialogue(process, last_words, "QEMU"))
        try:
            guest.dialogue.wait_up(BOOT_LIMIT)
        except BaseException:
            guest.end()
            raise
        return guest

    def reboot(self) -> None:
        """Reset the machine and wait until the guest is there again. Raises HarnessError."""
        self.dialogue.reboot(BOOT_LIMIT)

    def run(self, command: str, timeout: float = 60.0) -> str:
        """What a shell command line prints in the guest. Raises CommandFailed, HarnessError."""
        return self.dialogue.run(command, timeout)

    def end(self) -> None:
        """End QEMU at once."""
        self.process.signal(signal.SIGKILL)
        self.process.wait(20)


def at(name: str, folder: Path, *, again: bool, newer: bool = False) -> list[str]:
    """QEMU's words for the socket of the export *name*; with *again* it is looked for once a second when it has gone,
    which QEMU 7.2 can with some of its devices only: that of its entropy device is not awaited and ends it. A *newer*
    one has another word for it.
    """
    words = ",reconnect-ms=1000" if newer else ",reconnect=1"
    return ["-chardev", f"socket,id={name},path={folder / name}.sock" + words * again]
