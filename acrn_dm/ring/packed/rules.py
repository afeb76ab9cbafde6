"""The rules for a driver's side of a packed virtqueue (virtio 1.4, 2.8), checked in Python before the ring is walked.

A ``PackedRules`` is the ring that a device gets in place of its own, as ``split_rules.SplitRules`` is of split ones.
"""

from collections import deque
from collections.abc import Sequence

from acrn_dm._fastring import Chain
from acrn_dm.ring.features import EVENT_IDX, INDIRECT_DESC
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, RingLayout, RingMemory
from acrn_dm.ring.packed.driver import PackedFields
from acrn_dm.ring.packed.layout import (
    DESC_F_AVAIL,
    DESC_F_USED,
    EVENT_DESC,
    EVENT_FLAGS,
    PACKED_DESC,
    WRAP,
)
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring, Tell
from acrn_dm.ring.watched import Buffer, WatchedRing


class PackedRules(WatchedRing, PackedFields):
    """The ring *inner* with its driver watched; a ``Ring`` itself. One thread at a time uses it.

    Positions are counts of descriptors, from slot 0 of a lap with wrap counter 1 on. *fresh*: nobody has served the
    ring before.
    """

    def __init__(
        self,
        inner: Ring,
        memory: RingMemory,
        layout: RingLayout,
        features: int,
        *,
        begin: RingPosition,
        tell: Tell,
        fresh: bool,
    ) -> None:
        WatchedRing.__init__(self, inner, memory, tell)
        PackedFields.__init__(self, memory, layout)
        self._event_idx = bool(features & EVENT_IDX)
        self._indirect = bool(features & INDIRECT_DESC)
        at = begin.base >> 16 & 0xFFFF
        self._seen = (at & ~WRAP) + (0 if at & WRAP else layout.size)  # up to where chains were looked at
        self._returned = self._seen  # where the next used descriptor is written
        self._shown = self._seen  # up to where the driver may have seen descriptors used
        self._waiting: deque[int] = deque()  # lengths of chains that were looked at and not taken
        self._exposed: dict[int, tuple[int, dict[int, bytes]]] = {}  # id -> length of the list, its descriptors by slot
        if fresh:
            self._zeroed()

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        """Look at what is new, then take up to *limit* of the chains that were looked at."""
        self._look()
        if not self._waiting:
            self._inner.waiting()  # raises where the ring is broken
            return []
        taken = self._inner.pop_batch(min(limit, len(self._waiting)))
        for _ in taken:
            self._waiting.popleft()
        return taken

    def unpop(self, chains: Sequence[Chain]) -> None:
        """Give the last ones back; they are looked at no more."""
        self._inner.unpop(chains)
        self._waiting.extendleft(self._exposed.get(chain.head, (0, {}))[0] for chain in chains)

    def push(self, chain: Chain, written: int | None = None) -> None:
        """See that the driver has left the list alone, then use a descriptor for it: a slot that is the device's."""
        length, given = self._exposed.pop(chain.head, (0, {}))
        self._unaltered(given)
        used = self._returned % self.layout.size
        for _, others in self._exposed.values():
            others.pop(used, None)
        self._returned += length
        self._inner.push(chain, written)

    def publish(self) -> bool:
        """Look at what the driver asks for, then show it what was pushed."""
        self._event()
        self._shown = self._returned
        return self._inner.publish()

    def hold(self) -> bool:
        """As ``publish``."""
        self._event()
        self._shown = self._returned
        return self._inner.hold()

    def _zeroed(self) -> None:
        if any(self.desc(slot)[3] & DESC_F_USED for slot in range(self.layout.size)):
            self._tell("packed.zeroed", "the descriptor ring has used descriptors at the start")

    def _look(self) -> None:
        while self._is_available(self._seen):
            if not self._expose():
                break
        self._event()

    def _is_available(self, count: int) -> bool:
        return self.desc(count)[3] & (DESC_F_AVAIL | DESC_F_USED) == self.available_marks(count)

    def _expose(self) -> bool:
        """Judge the chain at the next descriptor; False for one behind which nobody can look."""
        if len(self._waiting) > self.layout.size:
            return False
        own: dict[int, bytes] = {}
        buffers: list[Buffer] = []
        at, whole, buffer_id, flags = self._seen, True, 0, DESC_F_NEXT
        while flags & DESC_F_NEXT and whole:
            if at >= self._shown + self.layout.size:
                self._tell("packed.too_many", f"more than {self.layout.size} descriptors are available")
                whole = False
            elif own and not self._is_available(at):
                self._tell("packed.list", f"a list goes on at {at % self.layout.size}, which is not available")
                whole = False
            else:
                gpa, length, buffer_id, flags = self.desc(at)
                buffers += self._buffers(gpa, length, flags, alone=not own)
                own[at % self.layout.size] = PACKED_DESC.pack(gpa, length, buffer_id, flags)
                at += 1
        if own and buffer_id in self._exposed:
            self._tell("packed.id", f"buffer id {buffer_id} is that of a chain that was not returned")
        self._judge(buffers)
        if own:
            self._exposed[buffer_id] = (len(own), own)
        self._waiting.append(len(own))  # the ring meets it next, whatever it is
        self._seen = at
        return whole

    def _buffers(self, gpa: int, length: int, flags: int, *, alone: bool) -> list[Buffer]:
        """What one descriptor of the ring stands for; *alone*: it is the first of its list."""
        if not flags & DESC_F_INDIRECT:
            return [(gpa, length, flags)]
        if not alone or flags & DESC_F_NEXT:
            self._tell("packed.indirect_list", "an indirect descriptor in a list")
        if not self._indirect:
            self._tell("indirect.negotiated", "an indirect table")
        entries, rest = divmod(length, PACKED_DESC.size)
        if rest or not entries:
            self._tell("indirect.length", f"an indirect table of {length} bytes")
            return []
        if entries > self.layout.size:
            self._tell("packed.too_long", f"{entries} buffers in a chain of a queue of {self.layout.size}")
            return []
        return self._table(gpa, entries)

    def _table(self, gpa: int, entries: int) -> list[Buffer]:
        raw = self._read(gpa, entries * PACKED_DESC.size)
        if raw is None:
            self._tell("desc.address", f"an indirect table at {gpa:#x}")
            return []
        found = [PACKED_DESC.unpack_from(raw, PACKED_DESC.size * i) for i in range(entries)]
        if any(flags & ~DESC_F_WRITE for _, _, _, flags in found):
            self._tell("packed.indirect_flags", "flags other than WRITE in an indirect table")
        return [(buffer_gpa, length, flags) for buffer_gpa, length, _, flags in found]

    def _event(self) -> None:
        event, flags = self.event(self.layout.avail)
        if flags & ~EVENT_FLAGS:
            self._tell("packed.event_reserved", f"reserved bits in the event flags {flags:#x}")
        elif flags > EVENT_DESC or (flags == EVENT_DESC and not self._event_idx):
            self._tell("packed.event_flags", f"the event flags are {flags}")
        elif flags == EVENT_DESC and event & ~WRAP >= self.layout.size:
            self._tell("packed.event_off", f"an event at descriptor {event & ~WRAP} of {self.layout.size}")

    def _unaltered(self, given: dict[int, bytes]) -> None:
        for slot, before in given.items():
            if self._read(self.desc_at(slot), PACKED_DESC.size) != before:
                self._tell("packed.altered", f"descriptor {slot} changed while the device had it")
