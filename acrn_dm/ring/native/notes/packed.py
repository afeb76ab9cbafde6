"""The notes of a packed ring as somebody takes them over: QueueRegionPacked of QEMU's docs/interop/vhost-user.rst,
"Inflight I/O tracking". The fields are those of ``_packed.pxd``, which writes them.
"""

import itertools
import struct
from collections.abc import Iterator

from acrn_dm._fastring import PackedRing
from acrn_dm.base.errors import GuestError
from acrn_dm.base.records import frozen
from acrn_dm.ring.layout import DESC, U16, RingLayout, RingMemory
from acrn_dm.ring.native.notes._notes import PackedNotes
from acrn_dm.ring.packed.layout import DESC_F_AVAIL, DESC_F_USED
from acrn_dm.ring.position import RingPosition

HEADER = struct.Struct("<QHH")  # features, version, desc_num
HEADS = struct.Struct("<HH")  # free_head, old_free_head
USED = struct.Struct("<HHBBH")  # used_idx, old_used_idx, used_wrap_counter, old_used_wrap_counter, padding
STATE = struct.Struct("<BxHHHQHHIQ")  # inflight, next, last, num, counter, id, flags, len, addr
HEADS_AT, USED_AT, STATES_AT = 12, 16, 32
NEXT_AT = 2
VERSION = 1
WRAP_SHIFT, OFF = 15, 0x7FFF
FLAGS_AT = 14  # of a descriptor

Descriptor = tuple[int, int, int, int]  # gpa, length, flags, buffer id


@frozen(kw_only=True)
class PackedLeft:
    """The state to go on from: *links* and *free_head* are the list of free entries, *again* the chains in
    flight, in order, each by its entries and their descriptors; *counter* comes next.
    """

    position: RingPosition
    again: list[tuple[list[int], list[Descriptor]]]
    links: list[int]
    free_head: int
    counter: int

    def note(self, ring: PackedRing, part: memoryview) -> None:
        """Have *ring*, which is at *position*, take these first, and note in *part* from now on."""
        again = [(entries[0], entries[-1], found[-1][3], found) for entries, found in self.again]
        PackedNotes(ring, part, counter=self.counter, links=self.links, free_head=self.free_head, again=again)


def length(entries: int) -> int:
    """Bytes of the notes of a ring of up to *entries*."""
    return STATES_AT + STATE.size * entries


def take_over(part: memoryview, memory: RingMemory, layout: RingLayout, position: RingPosition) -> PackedLeft:
    """Set *part* right after the process that noted there; where none did, the ring is at *position*.

    A process dies between any two stores: what it has done last is undone, unless the driver has been shown it. Each
    store of this, too, may be the last. Raises GuestError for notes that no process has left, or another ring's.
    """
    entries = (len(part) - STATES_AT) // STATE.size
    _, version, number = HEADER.unpack_from(part)
    if entries < layout.size:
        raise GuestError(f"notes of {entries} entries for a ring of {layout.size}")
    if not version:
        _say_used(part, position.base >> 16)
        counters: dict[int, int] = {}
        chains: list[tuple[list[int], list[Descriptor]]] = []
    elif version != VERSION or number != entries:
        raise GuestError(f"notes of version {version} for {number} entries, expected {VERSION} and {entries}")
    else:
        _settle(part, memory, layout, entries)
        counters = _in_flight(part, entries)
        order = sorted(counters, key=lambda entry: (counters[entry], entry))
        chains = list(_chains(part, order, entries, layout.size))
    links, free_head = _link(part, entries, [of_chain for of_chain, _ in chains])
    HEADER.pack_into(part, 0, 0, VERSION, entries)
    at = _used(part)
    counter = (max(counters.values(), default=-1) + 1) & (1 << 64) - 1
    where = RingPosition(at << 16 | at)
    return PackedLeft(position=where, again=chains, links=links, free_head=free_head, counter=counter)


def _say_used(part: memoryview, position: int) -> None:
    slot, wrap = position & OFF, position >> WRAP_SHIFT
    USED.pack_into(part, USED_AT, slot, slot, wrap, wrap, 0)


def _used(part: memoryview) -> int:
    slot, _, wrap, _, _ = USED.unpack_from(part, USED_AT)
    return int(slot | wrap << WRAP_SHIFT)


def _settle(part: memoryview, memory: RingMemory, layout: RingLayout, entries: int) -> None:
    """Finish or undo what was being returned."""
    slot, old_slot, wrap, old_wrap, _ = USED.unpack_from(part, USED_AT)
    free, old_free = HEADS.unpack_from(part, HEADS_AT)
    if max(slot, old_slot) >= layout.size or max(wrap, old_wrap) > 1 or max(free, old_free) > entries:
        raise GuestError(f"notes of a ring at {slot} and {old_slot} of {layout.size} descriptors")
    if (slot, wrap) != (old_slot, old_wrap) and not _is_available(memory, layout, old_slot, old_wrap):
        old_slot, old_wrap, old_free = slot, wrap, free
    HEADS.pack_into(part, HEADS_AT, old_free, old_free)
    seen = set()
    while old_free < entries and old_free not in seen:
        seen.add(old_free)
        part[STATES_AT + STATE.size * old_free] = 0
        old_free = STATE.unpack_from(part, STATES_AT + STATE.size * old_free)[1]
    USED.pack_into(part, USED_AT, old_slot, old_slot, old_wrap, old_wrap, 0)


def _is_available(memory: RingMemory, layout: RingLayout, slot: int, wrap: int) -> bool:
    (flags,) = U16.unpack(memory.read(layout.desc + DESC.size * slot + FLAGS_AT, U16.size))
    return bool(flags & (DESC_F_AVAIL | DESC_F_USED) == (DESC_F_AVAIL if wrap else DESC_F_USED))


def _in_flight(part: memoryview, entries: int) -> dict[int, int]:
    """Counters by the first entries of the chains in flight."""
    states = bytes(part[STATES_AT:])
    return {i: STATE.unpack_from(states, STATE.size * i)[4] for i in range(entries) if states[STATE.size * i]}


def _chains(
    part: memoryview, heads: list[int], entries: int, size: int
) -> Iterator[tuple[list[int], list[Descriptor]]]:
    taken: set[int] = set()
    for head in heads:
        number = STATE.unpack_from(part, STATES_AT + STATE.size * head)[3]
        of_chain, descriptors, entry = [], [], head
        for _ in range(number):
            if entry >= entries or entry in taken or len(taken) == size:
                raise GuestError(f"notes of a chain of {number} descriptors that can't be in a ring of {size}")
            taken.add(entry)
            _, link, _, _, _, id_, flags, count, gpa = STATE.unpack_from(part, STATES_AT + STATE.size * entry)
            of_chain.append(entry)
            descriptors.append((gpa, count, flags, id_))
            entry = link
        if not number:
            raise GuestError("notes of a chain without descriptors")
        yield of_chain, descriptors


def _link(part: memoryview, entries: int, chains: list[list[int]]) -> tuple[list[int], int]:
    """Make a list of all entries but those of *chains*: what follows each, there and in its chain, and where it begins.

    Whatever of this is stored, no free entry leads to one that is not.
    """
    links, behind = [0] * entries, entries
    taken = {entry for of_chain in chains for entry in of_chain}
    for entry in reversed(range(entries)):
        if entry not in taken:
            links[entry], behind = behind, entry
            U16.pack_into(part, STATES_AT + STATE.size * entry + NEXT_AT, links[entry])
    for of_chain in chains:
        for entry, link in itertools.pairwise(of_chain):
            links[entry] = link
    HEADS.pack_into(part, HEADS_AT, behind, behind)
    return links, behind
