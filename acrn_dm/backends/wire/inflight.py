"""The region in which a back-end notes what is in flight (INFLIGHT_SHMFD), as far as both ends know it.

It has a part for each queue, one behind the other, each from a multiple of ``ALIGNMENT`` on, as back-ends lay them out.
What stands in a part only a back-end knows (``ring.native.notes``).
"""

ALIGNMENT = 64
MAX_SIZE = 1 << 30  # 256 queues of 32768 entries of 32 bytes are a quarter of it


def stride(length: int) -> int:
    """From part to part, where each has *length* bytes."""
    return (length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
