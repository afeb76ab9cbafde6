"""Raw images and block devices: executes transfers on a file. Knows no descriptor, no request and no guest.

Every method may block and runs on a worker thread, except ``read_cached``. The format is raw and never guessed: what a
guest writes into the first sectors means nothing to us. All failures are OSError; a short transfer is continued, and
one that ends at the end of the file is EIO. ``trust`` says when the image as a whole can't be relied on any more.
"""

import errno
import fcntl
import os
import struct

import attrs

from acrn_dm.base._libc import fallocate
from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.config import SectorSize
from acrn_dm.devices.virtio_blk.engine.pieces import IOV_MAX, Views, scatter, total, transfer_all
from acrn_dm.devices.virtio_blk.image.node import BlockNode, erase
from acrn_dm.devices.virtio_blk.image.trust import Trust

ZEROES = memoryview(bytes(1 << 20))
BLKDISCARD = 0x1277  # linux/fs.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
NOT_PROVIDED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


@define(eq=False)
class Image:
    """An open image. Offsets and lengths are bytes from the start of the visible part and lie within *size*."""

    fd: int
    size: int
    sectors: SectorSize
    is_block_device: bool
    start: int = 0  # of the visible part (option range)
    node: BlockNode | None = None  # of a block device
    trust: Trust = attrs.field(init=False, repr=False)
    _cached_reads: bool = attrs.field(default=True, init=False)

    @trust.default
    def _new_trust(self) -> Trust:
        return Trust(self.fd, self.start + self.size, self.is_block_device)

    def read(self, views: Views, offset: int) -> None:
        """Fill *views*."""
        try:
            self._read(views, offset)
        finally:  # the better reason for an end that comes too early, too
            self.trust.require_whole()

    def write(self, views: Views, offset: int, *, durable: bool) -> None:
        """Write *views*; with *durable* they are on the medium when this returns."""
        self.trust.require_whole()
        if durable:
            self.trust.require_kept()
        if durable and not self.trust.volatile:
            with self.trust.durable_change():
                self._write(views, offset, durable=True)
        else:
            with self.trust.volatile_change():
                self._write(views, offset, durable=False)
            if durable:  # earlier writes wait for a flush: one whose failure means them, too
                self.flush()

    def read_cached(self, views: Views, offset: int) -> bool:
        """Fill *views* if that needs no waiting for the medium. Never blocks; False where some of it must be read."""
        if not self._cached_reads or len(views) > IOV_MAX:
            return False
        length = total(views)
        try:
            moved = os.preadv(self.fd, views, self.start + offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:  # the file system has no such reads; a real error shows when a worker tries
            self._cached_reads = False
            return False
        return moved == length and self.trust.whole()

    def flush(self) -> None:
        """Put everything written so far on the medium."""
        self.trust.sync()

    def discard(self, offset: int, length: int) -> None:
        """Give the range back; it then reads as anything. OSError EOPNOTSUPP where the medium cannot."""
        if not length:
            return
        self.trust.require_whole()
        try:
            if self.is_block_device:
                fcntl.ioctl(self.fd, BLKDISCARD, struct.pack("QQ", self.start + offset, length))
            else:
                fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, self.start + offset, length)
        except OSError as e:
            if e.errno in NOT_PROVIDED:
                raise OSError(errno.EOPNOTSUPP, "discard") from e
            raise
        finally:
            self.trust.standing.punched()

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        """Make the range read as zeroes, by deallocation if *unmap* allows it and the medium can."""
        if not length:
            return
        self.trust.require_whole()
        with self.trust.volatile_change():
            self._zero(offset, length, unmap)
        self.trust.standing.punched()
        if durable:
            self.flush()

    def secure_erase(self, offset: int, length: int) -> None:
        """Give the range back, with every copy that the medium has of it. OSError EOPNOTSUPP where it cannot."""
        if not length:
            return
        self.trust.require_whole()
        try:
            erase(self.fd, self.start + offset, length)
        except OSError as e:
            if e.errno in NOT_PROVIDED:
                raise OSError(errno.EOPNOTSUPP, "secure erase") from e
            raise

    @property
    def lifetime(self) -> bytes | None:
        """How worn the medium is (``node.LIFETIME``); None where it does not say."""
        return self.node.lifetime if self.node is not None else None

    def read_lifetime(self, views: Views) -> None:
        """Put ``lifetime`` into *views*. OSError EIO where it does not say, any more."""
        text = self.lifetime
        if text is None:
            raise OSError(errno.EIO, "the medium does not say how worn it is")
        scatter(memoryview(text), views)

    def close(self) -> None:
        """Close the file; the lock of a range goes with it."""
        os.close(self.fd)

    def _read(self, views: Views, offset: int) -> None:
        transfer_all(lambda part, at: os.preadv(self.fd, part, at), views, self.start + offset)

    def _write(self, views: Views, offset: int, *, durable: bool) -> None:
        flags = os.RWF_DSYNC if durable else 0
        transfer_all(lambda part, at: os.pwritev(self.fd, part, at, flags), views, self.start + offset)

    def _zero(self, offset: int, length: int, unmap: bool) -> None:
        try:
            fallocate(self.fd, (PUNCH_HOLE if unmap else ZERO_RANGE) | KEEP_SIZE, self.start + offset, length)
        except OSError as e:
            if e.errno not in NOT_PROVIDED:
                raise
            for at in range(0, length, len(ZEROES)):
                self._write([ZEROES[: length - at]], offset + at, durable=False)
