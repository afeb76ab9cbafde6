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

BLKGETSIZE64 = 0x80081272  # linux/fs.h
SIZE = struct.Struct("=Q")

log = logging.getLogger(__name__)


class LostError(OSError):
    """Something acknowledged is gone: trying again can't help."""


@attrs.define(eq=False)
class Trust:
    """Of the image open as *fd*, whose visible part ends at byte *end*."""

    fd: int
    end: int
    is_block_device: bool = False
    _cut: bool = attrs.field(default=False, init=False)
    _lost: str = attrs.field(default="", init=False)  # what the fdatasync that failed said
    # Counts beginnings and ends of changes that wait for a flush; those up to _stable are on the medium.
    _changes: int = attrs.field(default=0, init=False)
    _stable: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _syncing: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def whole(self) -> bool:
        """Whether the file has had its length all the time."""
        if not self._cut and (size := self._size()) < self.end:
            with self._lock:
                told, self._cut = self._cut, True
            if not told:
                log.error(
                    "an image in use was cut from %d to %d bytes: every request fails from now on", self.end, size
                )
        return not self._cut

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
        if self._lost:
            raise LostError(errno.EIO, f"an earlier flush failed ({self._lost}); the image has to be opened anew")

    @property
    def volatile(self) -> bool:
        """Whether changes have been made that no flush has followed yet."""
        return self._changes != self._stable

    @contextlib.contextmanager
    def volatile_change(self) -> Iterator[None]:
        """Around a change that waits for a flush."""
        with self._lock:
            self._changes += 1
        try:
            yield
        finally:
            with self._lock:
                self._changes += 1

    @contextlib.contextmanager
    def durable_change(self) -> Iterator[None]:
        """Around a write that waits for the medium itself: its failure may be the only word of another write's loss,
        because the kernel tells a file's write-back errors once. A write that found no room, or that nobody waits for
        any more, fails before that.
        """
        try:
            yield
        except OSError as e:
            if self.volatile and e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ECANCELED):
                self._lost = self._lost or str(e)
            raise

    def sync(self) -> None:
        """Put all changes that are finished on the medium. Raises OSError; LostError once one has failed."""
        with self._syncing:  # of two at a time the kernel would tell one of an error that concerns both
            self.require_kept()
            before = self._changes
            try:
                os.fdatasync(self.fd)
            except OSError as e:
                self._lost = str(e)
                raise
            self._stable = max(self._stable, before)
        self.require_whole()
