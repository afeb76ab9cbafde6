"""A split ring's part of the inflight region, as a back-end keeps it (docs/interop/vhost-user.rst, "Inflight I/O
tracking").

A process may die between any two stores, and its successor has nothing else to go by; so the order of stores, here and
in whoever calls this, is the one that is laid down there.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<QHHHH")  # features, version, desc_num, last_batch_head, used_idx
ENTRY = struct.Struct("<B5xHQ")  # inflight, next, counter
VERSION = 1
VERSION_AT, LAST_BATCH_HEAD_AT, USED_IDX_AT = 8, 12, 14
NEXT_AT, COUNTER_AT = 6, 8  # in an entry
ALIGNMENT = 64  # of each queue's part
U16 = struct.Struct("<H")
U64 = struct.Struct("<Q")


def queue_bytes(entries: int) -> int:
    """How much one queue of *entries* takes."""
    return (HEADER.size + entries * ENTRY.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class QueueNotes:
    """The part of *region* that begins at *start*."""

    def __init__(self, region: mmap.mmap, start: int) -> None:
        self._region = region
        self._start = start

    def prepare(self, entries: int) -> None:
        """Initialise a part that nobody has used."""
        if not self._get(VERSION_AT):
            HEADER.pack_into(self._region, self._start, 0, VERSION, entries, 0, 0)

    @property
    def used_idx(self) -> int:
        """The used ring's index after the last batch of which everything is noted."""
        return self._get(USED_IDX_AT)

    @used_idx.setter
    def used_idx(self, value: int) -> None:
        self._set(USED_IDX_AT, value & 0xFFFF)

    @property
    def entries(self) -> int:
        """desc_num."""
        return int(HEADER.unpack_from(self._region, self._start)[2])

    def take(self, head: int, counter: int) -> None:
        """The chain at *head* was taken from the available ring, as number *counter*."""
        U64.pack_into(self._region, self._entry(head) + COUNTER_AT, counter)
        self._region[self._entry(head)] = 1

    def link(self, head: int) -> None:
        """The chain is part of the batch that is going to be returned."""
        U16.pack_into(self._region, self._entry(head) + NEXT_AT, self._get(LAST_BATCH_HEAD_AT))
        self._set(LAST_BATCH_HEAD_AT, head)

    def clear(self, head: int) -> None:
        """The chain was returned."""
        self._region[self._entry(head)] = 0

    def recover(self, used: int) -> None:
        """Catch up with the used ring, whose index is *used*: the last batch may have been returned and not cleared."""
        head = self._get(LAST_BATCH_HEAD_AT)
        for _ in range((used - self.used_idx) & 0xFFFF):
            self.clear(head)
            head = U16.unpack_from(self._region, self._entry(head) + NEXT_AT)[0]
        self.used_idx = used

    def in_flight(self) -> dict[int, int]:
        """Heads of the chains in flight with their counters, in the order of the counters."""
        states = ((head, ENTRY.unpack_from(self._region, self._entry(head))) for head in range(self.entries))
        counters = {head: counter for head, (inflight, _, counter) in states if inflight}
        return dict(sorted(counters.items(), key=lambda item: item[1]))

    def _entry(self, head: int) -> int:
        return self._start + HEADER.size + head * ENTRY.size

    def _get(self, at: int) -> int:
        return int(U16.unpack_from(self._region, self._start + at)[0])

    def _set(self, at: int, value: int) -> None:
        U16.pack_into(self._region, self._start + at, value)


@contextlib.contextmanager
def notes_in(path: Path, start: int) -> Iterator[QueueNotes]:
    """What a region that is a named file says now."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as region:
        yield QueueNotes(region, start)
