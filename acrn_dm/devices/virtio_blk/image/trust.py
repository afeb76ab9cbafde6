"""Whether an open image still holds what was acknowledged. Two things end that until the image is opened anew:

* A failed fdatasync. The kernel has marked the pages it could not write as clean: they may be gone, and the next
  fdatasync returns 0 for them. So every later flush fails (as in QEMU), whichever queue sends it.
* A file that was cut short. A write behind the cut fills the gap with zeroes that nobody wrote, and where the cut was
  can't be told any more. So every request fails.

The length is looked at before each write and after each read: only who cuts a file and has it grown again between two
looks goes unnoticed. Threads: any.
"""

import contextlib
import errno
import fcntl
import logging
import os
import struct
import threading
from collections.abc import Iterator

import attrs

from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.image._standing import Standing

BLKGETSIZE64 = 0x80081272  # linux/fs.h
SIZE = struct.Struct("=Q")

log = logging.getLogger(__name__)


class LostError(OSError):
    """Something acknowledged is gone: trying again can't help."""


@define(eq=False)
class Trust:
    """Of the image open as *fd*, whose visible part ends at byte *end*."""

    fd: int
    end: int
    is_block_device: bool = False
    standing: Standing = attrs.field(init=False, repr=False)  # what is known, with who executes without the GIL
    _told: bool = attrs.field(default=False, init=False)
    _why: str = attrs.field(default="", init=False)  # what the fdatasync that failed said
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @standing.default
    def _nothing_known(self) -> Standing:
        return Standing(self.fd, self.end, self.is_block_device)

    def whole(self) -> bool:
        """Whether the file has had its length all the time."""
        known = self.standing.cut
        if (known and not self._told) or (not known and self._size() < self.end):
            with self._lock:
                told, self._told = self._told, True
                self.standing.cut = True
            if not told:
                size = self._size()
                log.error(
                    "an image in use was cut from %d to %d bytes: every request fails from now on", self.end, size
                )
        return not self.standing.cut

    def _size(self) -> int:
        if self.is_block_device:  # whose lseek waits for a discard under way
            return int(SIZE.unpack(fcntl.ioctl(self.fd, BLKGETSIZE64, bytes(SIZE.size)))[0])
        return os.lseek(self.fd, 0, os.SEEK_END)  # nothing here uses the position it sets

    def require_whole(self) -> None:
        """Raise LostError unless the file is ``whole``."""
        if not self.whole():
            raise LostError(errno.EIO, "the image was cut while in use; it has to be opened anew")

    def require_kept(self) -> None:
        """Raise LostError once something that was acknowledged is known to be lost."""
        if self.standing.lost:
            why = self._why or f"[Errno {self.standing.lost}] {os.strerror(self.standing.lost)}"
            raise LostError(errno.EIO, f"an earlier flush failed ({why}); the image has to be opened anew")

    @property
    def volatile(self) -> bool:
        """Whether changes have been made that no flush has followed yet."""
        return self.standing.volatile

    @contextlib.contextmanager
    def volatile_change(self) -> Iterator[None]:
        """Around a change that waits for a flush."""
        self.standing.change()
        try:
            yield
        finally:
            self.standing.change()

    @contextlib.contextmanager
    def durable_change(self) -> Iterator[None]:
        """Around a write that waits for the medium itself: its failure may be the only word of another write's loss,
        because the kernel tells a file's write-back errors once. A write that found no room, or that nobody waits for
        any more, fails before that.
        """
        try:
            yield
        except OSError as e:
            self.standing.durable_failed(e.errno or errno.EIO)
            raise

    def sync(self) -> None:
        """Put all changes that are finished on the medium. Raises OSError; LostError once one has failed."""
        before = self.standing.begin_sync()  # of two at a time the kernel would tell one of an error that concerns both
        err = errno.ECANCELED
        try:
            self.require_kept()
            os.fdatasync(self.fd)
            err = 0
        except LostError:
            raise
        except OSError as e:
            self._why, err = str(e), e.errno or errno.EIO
            raise
        finally:
            self.standing.end_sync(before, err)
        self.require_whole()
