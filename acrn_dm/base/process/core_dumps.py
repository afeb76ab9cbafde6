"""Core dumps of this process: without what belongs to a guest, unless the user wants it."""

import mmap


def leave_out(mapping: mmap.mmap) -> None:
    """Keep *mapping* out of core dumps (madvise(2), MADV_DONTDUMP). Raises OSError."""
    mapping.madvise(mmap.MADV_DONTDUMP)
