"""Image formats that hold a disk in a container: given as raw, a guest would see the container.

Every image is raw here, and nothing a guest writes changes that (guessing formats is how guests have read their hosts'
files). So what looks like a container is told of, and used as it was asked for.
"""

import os
import struct
from pathlib import Path

from acrn_dm.base.records import frozen

HEAD_BYTES = 512


@frozen
class Format:
    """A format by the bytes at *offset* of its first sector; *name* is qemu-img's (``-f``), empty if it knows none."""

    text: str
    name: str
    magic: bytes
    offset: int = 0


FORMATS = (
    Format("qcow2", "qcow2", b"QFI\xfb"),
    Format("QED", "qed", b"QED\0"),
    Format("VMDK", "vmdk", b"KDMV"),
    Format("VMDK", "vmdk", b"COWD"),
    Format("VMDK descriptor", "vmdk", b"# Disk DescriptorFile"),
    Format("VHDX", "vhdx", b"vhdxfile"),
    Format("VHD", "vpc", b"conectix"),
    Format("VDI", "vdi", struct.pack("<I", 0xBEDA107F), 0x40),
    Format("Parallels", "parallels", b"WithoutFreeSpace"),
    Format("Parallels", "parallels", b"WithouFreSpacExt"),
    Format("gzip", "", b"\x1f\x8b\x08"),
    Format("xz", "", b"\xfd7zXZ\0"),
    Format("zstd", "", b"\x28\xb5\x2f\xfd"),
    Format("bzip2", "", b"BZh91AY&SY"),
)


def look(path: Path) -> Format | None:
    """What the image at *path* looks like, if not raw. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, HEAD_BYTES, 0)
    finally:
        os.close(fd)
    return next((f for f in FORMATS if head.startswith(f.magic, f.offset)), None)


def what_to_do(found: Format, path: Path) -> str:
    """How the disk in image *path* is reached, in a few words."""
    if not found.name:
        return "unpack it first"
    convert = f"qemu-img convert -f {found.name} -O raw {path} NEW"
    return f"make a raw one ({convert}), or let qemu-storage-daemon read it (vhost-user=SOCKET)"


def remark(path: Path) -> str | None:
    """What is odd about the image at *path*, as one line. Raises OSError."""
    found = look(path)
    if found is None:
        return None
    text = f"image {path} looks like {found.text} and is used as raw: the guest sees the container"
    return f"{text}; {what_to_do(found, path)}"
