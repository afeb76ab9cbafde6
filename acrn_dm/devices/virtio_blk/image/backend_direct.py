"""``nocache``: transfers that bypass the host's page cache (O_DIRECT), which wants everything aligned.

Aligned requests go straight to guest memory. Where the kernel refuses the addresses or lengths of the guest's buffers,
an aligned buffer of ours stands in between. Where offset or length of the request itself are not aligned to the
medium's blocks, a second descriptor without O_DIRECT does it, and the pages it leaves are dropped: read-modify-write
here would race with requests on the neighbouring sectors, the page cache does not.
"""

import contextlib
import errno
import mmap
import os
from collections.abc import Callable

import attrs

from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.engine.pieces import Views, after, gather, scatter, total, transfer_all
from acrn_dm.devices.virtio_blk.image.backend import Image

BOUNCE_BYTES = 1 << 20
ALIGNMENTS = (512, 4096)


@define(eq=False)
class DirectImage(Image):
    """An image opened with O_DIRECT; *buffered_fd* is the same file without. *alignment* is in bytes."""

    buffered_fd: int = attrs.field(kw_only=True)
    alignment: int = attrs.field(kw_only=True)

    def _read(self, views: Views, offset: int) -> None:
        if not self._aligned(views, offset):
            self._buffered(lambda part, at: os.preadv(self.buffered_fd, part, at), views, offset)
            return
        if not self._refused(lambda: Image._read(self, views, offset)):
            return
        bounce = memoryview(mmap.mmap(-1, min(total(views), BOUNCE_BYTES)))
        while length := min(total(views), BOUNCE_BYTES):
            part = bounce[:length]
            transfer_all(lambda p, at: os.preadv(self.fd, p, at), [part], self.start + offset)
            scatter(part, views)
            offset += length
            views = after(views, length)

    def _write(self, views: Views, offset: int, *, durable: bool) -> None:
        # O_DIRECT alone doesn't make it durable: the medium has a cache of its own.
        flags = os.RWF_DSYNC if durable else 0
        if not self._aligned(views, offset):
            self._buffered(lambda part, at: os.pwritev(self.buffered_fd, part, at, os.RWF_DSYNC), views, offset)
            return
        if not self._refused(lambda: Image._write(self, views, offset, durable=durable)):
            return
        bounce = memoryview(mmap.mmap(-1, min(total(views), BOUNCE_BYTES)))
        while length := min(total(views), BOUNCE_BYTES):
            part = bounce[:length]
            gather(views, part)
            transfer_all(lambda p, at: os.pwritev(self.fd, p, at, flags), [part], self.start + offset)
            offset += length
            views = after(views, length)

    def read_cached(self, views: Views, offset: int) -> bool:
        """Nothing is cached."""
        return False

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.buffered_fd)
        Image.close(self)

    def _aligned(self, views: Views, offset: int) -> bool:
        return not (self.start + offset) % self.alignment and not total(views) % self.alignment

    def _refused(self, transfer: Callable[[], None]) -> bool:
        """Whether the kernel did not like the guest's buffers (EINVAL, before anything moved)."""
        try:
            transfer()
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            return True
        return False

    def _buffered(self, call: Callable[..., int], views: Views, offset: int) -> None:
        transfer_all(call, views, self.start + offset)
        os.posix_fadvise(self.buffered_fd, self.start + offset, total(views), os.POSIX_FADV_DONTNEED)


def probe_alignment(fd: int, size: int) -> int:
    """The smallest block that *fd*, opened with O_DIRECT, reads; *size* is its length in bytes."""
    page = memoryview(mmap.mmap(-1, ALIGNMENTS[-1]))
    for alignment in ALIGNMENTS:
        with contextlib.suppress(OSError):
            os.preadv(fd, [page[:alignment]], alignment if size >= 2 * alignment else 0)
            return alignment
    return ALIGNMENTS[-1]
