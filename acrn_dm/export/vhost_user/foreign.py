"""A client's file in this process's memory, which the client may shorten at any time."""

import mmap
import os

import attrs

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.base.process import _shortened
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.base.records import frozen


@frozen(kw_only=True, eq=False)
class Foreign:
    """Some bytes of a client's file, from *first* on in the mapping; it owns *fd*. *watch* is of ``_shortened``."""

    fd: int
    mapping: mmap.mmap = attrs.field(repr=False)
    first: int
    watch: int = attrs.field(repr=False)

    def close(self) -> None:
        """Unmap and close."""
        _shortened.unwatch(self.watch)
        self.mapping.close()
        os.close(self.fd)


def map_file(fd: int, offset: int, length: int, shortened: int, *, what: str, dumped: bool = False) -> Foreign:
    """Map *length* bytes of *fd*, which is owned from now on, at *offset*, which need not be a page's. Raises
    PeerError, about *what*.

    The eventfd *shortened* tells when the file was. Core dumps of this process have the mapping only if *dumped*.
    """
    try:
        status = os.fstat(fd)
        if status.st_size < offset + length:
            raise PeerError(f"{what} is longer than its file")
        first = offset % max(mmap.ALLOCATIONGRANULARITY, status.st_blksize)  # of huge pages, where it has them
        first += (offset - first) % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(fd, first + length, mmap.MAP_SHARED, offset=offset - first)
        if not dumped:
            leave_out(mapping)
        return Foreign(fd=fd, mapping=mapping, first=first, watch=_shortened.watch(mapping, shortened))
    except (OSError, OverflowError, ValueError) as e:
        os.close(fd)
        raise PeerError(f"{what} can't be mapped: {e}") from e
    except PeerError:
        os.close(fd)
        raise
