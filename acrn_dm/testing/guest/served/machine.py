"""The words of QEMU's command line for a guest that obeys, in software emulation."""

import json
from collections.abc import Sequence
from pathlib import Path

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.qemu import program

MEMORY = "256M"
PATIENCE_MS = 60000  # for each answer of who serves a device


def command(
    image: Path,
    initramfs: Path,
    serial: Path,
    *,
    cpus: int = 2,
    memory: str = MEMORY,
    append: str = "",
    qemu: Sequence[str] = (),
    board: str = "pc",
) -> list[str]:
    """QEMU's words for a guest without devices but its shell's; *append* goes behind the usual command line of the
    kernel, and *qemu* starts another QEMU than this host's.
    """
    return [
        *(qemu or [program()]),
        *("-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi"),
        *("-cpu", "qemu64", "-smp", str(cpus), "-m", memory),
        *("-object", f"memory-backend-memfd,id=ram,size={memory},share=on"),
        *("-machine", f"{board},usb=off,memory-backend=ram"),
        *("-kernel", str(image), "-initrd", str(initramfs), "-append", f"{COMMAND_LINE} {append}"),
        *("-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial"),
        *("-chardev", "stdio,id=shell,signal=off", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=shell,name=shell"),
    ]


def vfio_user(name: str, folder: Path, **properties: object) -> list[str]:
    """A newer QEMU's words for the function that is served at ``NAME.sock`` in *folder*."""
    socket = {"type": "unix", "path": str(folder / f"{name}.sock")}
    return [
        "-device",
        json.dumps({"driver": "vfio-user-pci", "socket": socket, "x-msg-timeout": PATIENCE_MS, **properties}),
    ]
