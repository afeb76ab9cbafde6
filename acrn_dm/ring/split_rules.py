"""The rules for a driver's side of a split virtqueue (virtio 1.4, 2.7), checked in Python before the ring is walked.

A ``SplitRules`` is the ring that a device gets in place of its own. It looks, tells which rule was broken, by the ids
of ``virtio.strict.clauses``, and hands on: what becomes of a broken ring is still the ring's own decision.
"""

from collections.abc import Iterator

from acrn_dm._fastring import Chain
from acrn_dm.ring.driver import RingFields
from acrn_dm.ring.features import EVENT_IDX, IN_ORDER, INDIRECT_DESC
from acrn_dm.ring.layout import DESC, DESC_F_INDIRECT, DESC_F_NEXT, RingLayout, RingMemory
from acrn_dm.ring.ring import Ring, Tell
from acrn_dm.ring.watched import WatchedRing

Descriptor = tuple[int, int, int, int]  # gpa, length, flags, next


class SplitRules(WatchedRing, RingFields):
    """The ring *inner* with its driver watched; a ``Ring`` itself. One thread at a time uses it."""

    def __init__(
        self, inner: Ring, memory: RingMemory, layout: RingLayout, features: int, *, begin: int, tell: Tell, fresh: bool
    ) -> None:
        WatchedRing.__init__(self, inner, memory, tell)
        RingFields.__init__(self, memory, layout)
        self._event_idx = bool(features & EVENT_IDX)
        self._indirect = bool(features & INDIRECT_DESC)
        self._seen = begin  # the available index up to which chains were looked at
        self._returned = begin
        self._exposed: dict[int, dict[int, bytes]] = {}  # head -> the descriptors of its chain, as they were then
        self._taken: set[int] = set()  # all descriptors of these
        self._next: int | None = (
            0 if features & IN_ORDER and fresh else None
        )  # with IN_ORDER the descriptor to come next
        if fresh and self._get_u16(layout.used_flags_at):
            tell("used.flags", "the used ring's flags are not 0 at the start")

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        """Look at what is new, then take up to *limit* of the chains that were looked at: one that the driver makes
        available in between could be returned, and its descriptors used again, before it is looked at.
        """
        self._look()
        looked_at = (self._seen - self._inner.next_avail) & 0xFFFF
        if not looked_at:
            self._inner.waiting()  # raises where the ring is broken; what came since the look is told by enable_kicks
            return []
        return self._inner.pop_batch(limit if looked_at > self.layout.size else min(limit, looked_at))

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next chain; True when more came than was looked at. The inner ring tells only of what
        it has not seen itself, and it may have seen a chain that was not given out here.
        """
        arrived = self._inner.enable_kicks()
        return arrived or self._get_u16(self.layout.avail_idx_at) != self._seen

    def push(self, chain: Chain, written: int | None = None) -> None:
        """See that the driver has left the chain alone, then return it."""
        given = self._exposed.pop(chain.head, {})
        self._taken -= given.keys()
        self._unaltered(given)
        self._returned = (self._returned + 1) & 0xFFFF
        self._inner.push(chain, written)

    def publish(self) -> bool:
        """Look at the flags that say whether the driver wants an interrupt, then show it what was pushed."""
        self._flags()
        return self._inner.publish()

    def hold(self) -> bool:
        """As ``publish``."""
        self._flags()
        return self._inner.hold()

    def _look(self) -> None:
        idx = self._get_u16(self.layout.avail_idx_at)
        ahead = (idx - self._seen) & 0xFFFF
        if ahead >= 0x8000:
            self._tell("avail.decrement", f"the available index went from {self._seen} to {idx}")
        elif (idx - self._returned) & 0xFFFF > self.layout.size:
            exposed = (idx - self._returned) & 0xFFFF
            self._tell("avail.too_many", f"{exposed} chains of a queue of {self.layout.size}")
        else:
            for at in range(ahead):
                self._expose(self._get_u16(self.layout.avail_entry_at(self._seen + at)))
        self._seen = idx
        self._flags()

    def _flags(self) -> None:
        flags = self._get_u16(self.layout.avail_flags_at)
        if self._event_idx and flags:
            self._tell("avail.flags_event_idx", f"the available ring's flags are {flags:#x}")
        elif flags > 1:
            self._tell("avail.flags", f"the available ring's flags are {flags:#x}")

    def _expose(self, head: int) -> None:
        if head >= self.layout.size:
            self._tell("avail.head", f"head {head} of a queue of {self.layout.size}")
            return
        chain = self._walk(head)
        self._around(list(chain))
        shared = chain.keys() & self._taken
        if shared:
            self._tell("desc.in_flight", f"descriptor {min(shared)} is in a chain that was not returned")
        self._exposed[head] = chain
        self._taken |= chain.keys()

    def _around(self, descriptors: list[int]) -> None:
        """With IN_ORDER they come one behind the other, around the table (2.7.9)."""
        if self._next is None or not descriptors:
            return
        wanted = [(self._next + at) % self.layout.size for at in range(len(descriptors))]
        if descriptors != wanted:
            self._tell("desc.in_order", f"descriptors {descriptors[:4]} where {wanted[:4]} come next")
        self._next = (descriptors[-1] + 1) % self.layout.size

    def _walk(self, head: int) -> dict[int, bytes]:
        """Judge one chain; returns its descriptors in the queue's own table."""
        own: dict[int, bytes] = {}
        buffers: list[Descriptor] = []
        for index, raw in self._chain(self.layout.desc, self.layout.size, head):
            own[index] = raw
            descriptor = DESC.unpack(raw)
            if descriptor[2] & DESC_F_INDIRECT:
                buffers += self._table(descriptor)
            else:
                buffers.append(descriptor)
        if len(buffers) > self.layout.size:
            self._tell("indirect.too_long", f"{len(buffers)} buffers in a chain of a queue of {self.layout.size}")
        self._judge([buffer[:3] for buffer in buffers])
        return own

    def _chain(self, table: int, entries: int, index: int) -> Iterator[tuple[int, bytes]]:
        """The descriptors of a table from *index* on, as far as they follow each other."""
        passed: set[int] = set()
        while index not in passed:
            if len(passed) > self.layout.size:
                return  # longer than a chain may be, which is told; a table can be as large as memory
            if index >= entries:
                self._tell("desc.next", f"next {index} of a table of {entries}")
                return
            passed.add(index)
            raw = self._read(table + DESC.size * index, DESC.size)
            if raw is None:
                self._tell("desc.address", f"a descriptor table at {table:#x}")
                return
            yield index, raw
            flags, following = DESC.unpack(raw)[2:]
            if not flags & DESC_F_NEXT:
                return
            index = following
        self._tell("desc.loop", f"descriptor {index} comes twice")

    def _table(self, descriptor: Descriptor) -> list[Descriptor]:
        """The buffers of an indirect table."""
        gpa, length, flags, _ = descriptor
        if not self._indirect:
            self._tell("indirect.negotiated", "an indirect table")
        if flags & DESC_F_NEXT:
            self._tell("indirect.next", "an indirect descriptor with NEXT")
        if not length or length % DESC.size:
            self._tell("indirect.length", f"an indirect table of {length} bytes")
            return []
        found = [DESC.unpack(raw) for _, raw in self._chain(gpa, length // DESC.size, 0)]
        if any(flags & DESC_F_INDIRECT for _, _, flags, _ in found):
            self._tell("indirect.nested", "an indirect descriptor in an indirect table")
        return [buffer for buffer in found if not buffer[2] & DESC_F_INDIRECT]

    def _unaltered(self, chain: dict[int, bytes]) -> None:
        for index, before in chain.items():
            if self._read(self.layout.desc_at(index), DESC.size) != before:
                self._tell("desc.altered", f"descriptor {index} changed while the device had it")
