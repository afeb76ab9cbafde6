"""Raw images and block devices: executes transfers on a file. Knows no descriptor, no request and no guest.

Every method may block and runs on a worker thread, except ``read_cached``. The format is raw and never guessed: what a
guest writes into the first sectors means nothing to us. All failures are OSError; a short transfer is continued, and
one that ends at the end of the file is EIO.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence

import attrs

from acrn_dm.devices.virtio_blk.config import SectorSize

IOV_MAX = 1024  # vectors of one preadv or pwritev
ZEROES = memoryview(bytes(1 << 20))
BLKDISCARD = 0x1277  # linux/fs.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
NOT_PROVIDED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)

Views = Sequence[memoryview]  # of guest memory or of ours
Transfer = Callable[[Views, int], int]  # (views, offset) -> bytes moved

_libc = ctypes.CDLL(None, use_errno=True)  # calls release the GIL


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which ``os`` lacks. Raises OSError."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err))


def after(views: Views, skip: int) -> list[memoryview]:
    """*views* without their first *skip* bytes."""
    rest = list(views)
    while rest and skip >= len(rest[0]):
        skip -= len(rest.pop(0))
    if skip:
        rest[0] = rest[0][skip:]
    return rest


def transfer_all(call: Transfer, views: Views, offset: int) -> None:
    """Repeat *call* until all of *views* is moved, however short each call is. Raises OSError."""
    while views:
        moved = call(views[:IOV_MAX], offset)
        if moved == 0:
            raise OSError(errno.EIO, "the image ends before the transfer does")
        offset += moved
        views = after(views, moved)


def total(views: Views) -> int:
    """Bytes in all of *views*."""
    return sum(len(view) for view in views)


@attrs.define(eq=False)
class Image:
    """An open image. Offsets and lengths are bytes from the start of the visible part and lie within *size*."""

    fd: int
    size: int
    sectors: SectorSize
    is_block_device: bool
    start: int = 0  # of the visible part (option range)
    _cached_reads: bool = attrs.field(default=True, init=False)

    def read(self, views: Views, offset: int) -> None:
        """Fill *views*."""
        transfer_all(lambda part, at: os.preadv(self.fd, part, at), views, self.start + offset)

    def write(self, views: Views, offset: int, *, durable: bool) -> None:
        """Write *views*; with *durable* they are on the medium when this returns."""
        flags = os.RWF_DSYNC if durable else 0
        transfer_all(lambda part, at: os.pwritev(self.fd, part, at, flags), views, self.start + offset)

    def read_cached(self, views: Views, offset: int) -> bool:
        """Fill *views* if that needs no waiting for the medium. Never blocks; False where some of it must be read."""
        if not self._cached_reads or len(views) > IOV_MAX:
            return False
        try:
            return os.preadv(self.fd, views, self.start + offset, os.RWF_NOWAIT) == total(views)
        except BlockingIOError:
            return False
        except OSError:  # the file system has no such reads; a real error shows when a worker tries
            self._cached_reads = False
            return False

    def flush(self) -> None:
        """Put everything written so far on the medium."""
        os.fdatasync(self.fd)

    def discard(self, offset: int, length: int) -> None:
        """Give the range back; it then reads as anything. OSError EOPNOTSUPP where the medium cannot."""
        if not length:
            return
        try:
            if self.is_block_device:
                fcntl.ioctl(self.fd, BLKDISCARD, struct.pack("QQ", self.start + offset, length))
            else:
                fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, self.start + offset, length)
        except OSError as e:
            if e.errno in NOT_PROVIDED:
                raise OSError(errno.EOPNOTSUPP, "discard") from e
            raise

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        """Make the range read as zeroes, by deallocation if *unmap* allows it and the medium can."""
        if not length:
            return
        try:
            fallocate(self.fd, (PUNCH_HOLE if unmap else ZERO_RANGE) | KEEP_SIZE, self.start + offset, length)
        except OSError as e:
            if e.errno not in NOT_PROVIDED:
                raise
            for at in range(0, length, len(ZEROES)):
                self.write([ZEROES[: length - at]], offset + at, durable=False)
        if durable:
            self.flush()

    def close(self) -> None:
        """Close the file; the lock of a range goes with it."""
        os.close(self.fd)
