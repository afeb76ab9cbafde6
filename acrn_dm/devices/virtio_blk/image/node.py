"""Block devices as the kernel describes them: sysfs of the whole disk, also for a partition; and what ioctls ask."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from acrn_dm.base.records import frozen

SYSFS = Path("/sys")
BLKSECDISCARD = 0x127D  # linux/fs.h
RANGE = struct.Struct("QQ")  # first byte, length
LIFETIME = struct.Struct("<HHH")  # struct virtio_blk_lifetime (5.2.6): pre_eol_info, estimates of types A and B
MOST_LIFETIME = (3, 11, 11)  # larger ones are reserved, 0 says nothing


@frozen
class BlockNode:
    """A block device, by the *folder* that sysfs has for it."""

    folder: Path

    @property
    def zoned(self) -> str:
        """The zone model: none, drive-managed and host-aware disks take any write, host-managed ones do not."""
        return _text(self.folder / "queue/zoned") or "none"

    @property
    def lifetime(self) -> bytes | None:
        """How worn it is, as GET_LIFETIME answers; None where nothing is known: no eMMC, or one that does not say."""
        texts = (_text(self.folder / "device/pre_eol_info"), *(_text(self.folder / "device/life_time") or "").split())
        if len(texts) != len(MOST_LIFETIME):
            return None
        try:
            values = [int(text or "0", 16) for text in texts]
        except ValueError:
            return None
        known = [value if 0 <= value <= most else 0 for value, most in zip(values, MOST_LIFETIME, strict=True)]
        return LIFETIME.pack(*known) if any(known) else None


def node_of(fd: int) -> BlockNode | None:
    """The block device open as *fd*; None if it is another kind of file. Raises OSError."""
    status = os.fstat(fd)
    return block_node(status.st_rdev) if stat.S_ISBLK(status.st_mode) else None


def block_node(rdev: int, root: Path = SYSFS) -> BlockNode:
    """The disk that block device number *rdev* is, or is a partition of, in the sysfs at *root*."""
    folder = (root / "dev/block" / f"{os.major(rdev)}:{os.minor(rdev)}").resolve()
    return BlockNode(folder.parent if (folder / "partition").exists() else folder)


def can_erase(fd: int) -> bool | None:
    """Whether the block device *fd* erases for good; None where nobody can say: it is not open for writing.

    The kernel looks for that before it looks at the range, which is a wrong one here: nothing is erased. Kernels before
    5.19 look in another order, so there it is not known before it is tried, and denied.
    """
    if _release() < (5, 19):
        return False
    try:
        fcntl.ioctl(fd, BLKSECDISCARD, RANGE.pack(1, 1))
    except OSError as e:
        return None if e.errno == errno.EBADF else e.errno == errno.EINVAL
    return False


def erase(fd: int, offset: int, length: int) -> None:
    """Erase *length* bytes from *offset* for good, with all copies that the device has of them. Raises OSError."""
    fcntl.ioctl(fd, BLKSECDISCARD, RANGE.pack(offset, length))


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdecimal()) or 0)


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return None
