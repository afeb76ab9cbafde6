"""The notes of a split ring as somebody takes them over: QueueRegionSplit of QEMU's docs/interop/vhost-user.rst,
"Inflight I/O tracking". The fields are those of ``_split.pxd``, which writes them.
"""

import struct

from acrn_dm._fastring import SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import frozen
from acrn_dm.ring.layout import U16, RingLayout, RingMemory
from acrn_dm.ring.native.notes._notes import SplitNotes
from acrn_dm.ring.position import RingPosition

HEADER = struct.Struct("<QHHHH")  # features, version, desc_num, last_batch_head, used_idx
STATE = struct.Struct("<B5xHQ")  # inflight, next, counter
VERSION = 1
USED_IDX_AT = 14


@frozen(kw_only=True)
class SplitLeft:
    """The state to go on from: *again* are heads of the chains in flight, in order; *counter* comes next."""

    position: RingPosition
    again: list[int]
    counter: int

    def note(self, ring: SplitRing, part: memoryview) -> None:
        """Have *ring*, which is at *position*, take these first, and note in *part* from now on."""
        SplitNotes(ring, part, counter=self.counter, again=self.again)


def length(entries: int) -> int:
    """Bytes of the notes of a ring of up to *entries*."""
    return HEADER.size + STATE.size * entries


def take_over(part: memoryview, memory: RingMemory, layout: RingLayout, position: RingPosition) -> SplitLeft:
    """Set *part* right after the process that noted there; where none did, the ring is at *position*.

    A process dies between any two stores, so what the driver has seen of the last batch goes by its used index. Each
    store of this, too, may be the last. Raises GuestError for notes that no process has left, or another ring's.
    """
    entries = (len(part) - HEADER.size) // STATE.size
    _, version, number, head, noted = HEADER.unpack_from(part)
    if entries < layout.size:
        raise GuestError(f"notes of {entries} entries for a ring of {layout.size}")
    if not version:
        HEADER.pack_into(part, 0, 0, 0, entries, 0, position.base)
        HEADER.pack_into(part, 0, 0, VERSION, entries, 0, position.base)
        return SplitLeft(position=position, again=[], counter=0)
    if version != VERSION or number != entries:
        raise GuestError(f"notes of version {version} for {number} entries, expected {VERSION} and {entries}")
    (used,) = U16.unpack(memory.read(layout.used_idx_at, U16.size))
    _forget_batch(part, (used - noted) & 0xFFFF, head, layout.size)
    U16.pack_into(part, USED_IDX_AT, used)
    states = bytes(part[HEADER.size :])
    counters = {i: STATE.unpack_from(states, STATE.size * i)[2] for i, on in enumerate(states[:: STATE.size]) if on}
    again = sorted(counters, key=lambda head: (counters[head], head))
    if any(head >= layout.size for head in again):
        raise GuestError(f"notes of descriptor {max(again)} in flight in a ring of {layout.size}")
    counter = max(counters.values(), default=-1) + 1
    return SplitLeft(position=RingPosition(used), again=again, counter=counter & (1 << 64) - 1)


def _forget_batch(part: memoryview, count: int, head: int, size: int) -> None:
    """The *count* chains from *head* on came back, and may not have been noted as that."""
    if count > size:
        raise GuestError(f"notes of a batch of {count} chains in a ring of {size}")
    for _ in range(count):
        if head >= size:
            raise GuestError(f"notes of a batch with descriptor {head} in a ring of {size}")
        at = HEADER.size + STATE.size * head
        part[at] = 0
        head = STATE.unpack_from(part, at)[1]
