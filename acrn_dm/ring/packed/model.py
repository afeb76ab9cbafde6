"""Device side of a packed virtqueue in plain Python, written for clarity from virtio 1.4, 2.8: the oracle.

Positions are counts of descriptors, as in ``packed.driver``.
"""

from collections.abc import Sequence

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, U16, RingLayout
from acrn_dm.ring.model import MAX_BATCH, MAX_CHAIN_DESCRIPTORS, ModelChain, ModelMemory, add_buffer
from acrn_dm.ring.packed.driver import PackedFields
from acrn_dm.ring.packed.layout import (
    DESC_F_AVAIL,
    DESC_F_USED,
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    EVENT_FLAGS,
    EVENT_FLAGS_AT,
    ID_AT,
    LEN_AT,
    PACKED_DESC,
    off_wrap,
)
from acrn_dm.ring.position import RingPosition


class ModelPackedChain(ModelChain):
    """One chain of a packed ring; it took *descriptors* of the ring from *position* on."""

    descriptors = 0


class ModelPackedRing(PackedFields):
    """Device side of one packed virtqueue, with the calls and the decisions of ``_fastring.PackedRing``."""

    memory: ModelMemory

    def __init__(
        self,
        memory: ModelMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__(memory, layout)
        self.event_idx = event_idx
        self.indirect = indirect
        self._avail = start  # the next descriptor to take
        self.next_used = start
        self.published_used = start
        self._wish: tuple[int, int] | None = None  # what the driver asked for an interrupt by that is held back
        self._seen = start  # up to where descriptors were seen to be available; never before _avail
        self.broken: GuestError | None = None
        self._in_flight: dict[int, int] = {}  # buffer id -> descriptors
        self._hidden: int | None = None  # flags of the used descriptor that publish shows, the others are behind it

    @property
    def in_flight(self) -> int:
        """Chains popped and neither pushed nor given back."""
        return len(self._in_flight)

    @property
    def next_avail(self) -> int:
        """The next descriptor to take, wrap counter in bit 15."""
        return off_wrap(self._avail, self.layout.size)

    @property
    def position(self) -> RingPosition:
        """The next used descriptor, for both sides: what is in flight is taken again."""
        at = off_wrap(self.next_used, self.layout.size)
        return RingPosition(at | at << 16)

    def waiting(self) -> bool:
        """Whether a chain is available that was not taken."""
        self._check()
        self._sees_more()
        return self._seen > self._avail

    def pop_batch(self, limit: int = 64) -> list[ModelPackedChain]:
        """Take up to *limit* chains; a malformed one ends the batch, and raises GuestError when it comes first."""
        self._check()
        chains: list[ModelPackedChain] = []
        while len(chains) < min(limit, MAX_BATCH) and self._available(self._avail):
            try:
                chains.append(self._take())
            except GuestError as e:
                if chains:
                    break
                self.broken = e
                raise
        return chains

    def unpop(self, chains: Sequence[ModelPackedChain]) -> None:
        """Give the chains popped last back."""
        self._check()
        first = self._avail
        for chain in reversed(chains):
            first -= chain.descriptors
            if chain.done or chain.position != first:
                raise ValueError("not the chains popped last")
        for chain in chains:
            chain.done = True
            del self._in_flight[chain.head]
        self._avail = first

    def push(self, chain: ModelPackedChain, written: int | None = None) -> None:
        """Write the used descriptor; the driver sees it at the next ``publish``."""
        self._check()
        count = chain.written if written is None else written
        if chain.done or not 0 <= count <= chain.writable_bytes:
            raise ValueError(f"chain {chain.head}, {count} bytes written")
        chain.done = True
        del self._in_flight[chain.head]
        at = self.next_used
        self.memory.write(self.desc_at(at) + LEN_AT, count.to_bytes(4, "little"))
        self.memory.write(self.desc_at(at) + ID_AT, U16.pack(chain.head))
        flags = self.used_marks(at) | (DESC_F_WRITE if chain.writable_bytes else 0)
        if self._hidden is None:
            self._hidden = flags
        else:
            self.set_flags(at, flags)
        self.next_used += chain.descriptors

    def publish(self) -> bool:
        """Show the driver everything pushed; True when it wants an interrupt for that."""
        self._check()
        if self._hidden is None:
            return False
        old, self.published_used = self.published_used, self.next_used
        self.set_flags(old, self._hidden)
        self._hidden = None
        event, flags = self.event(self.layout.avail)
        if flags & EVENT_FLAGS == EVENT_DESC and self.event_idx:
            return self.event_passed(event, self.next_used, old)
        return flags & EVENT_FLAGS != EVENT_DISABLE

    def hold(self) -> bool:
        """The same with the interrupt held back until ``release``; True while there is one."""
        if self.publish():
            self._wish = self.event(self.layout.avail)
        return self._wish is not None

    def release(self) -> bool:
        """True when the driver wants what was held back, and has asked for nothing else since."""
        self._check()
        wish, self._wish = self._wish, None
        now, flags = self.event(self.layout.avail)
        if wish is None or flags & EVENT_FLAGS == EVENT_DISABLE:
            return False
        return not (flags & EVENT_FLAGS == EVENT_DESC and self.event_idx) or wish == (now, flags)

    def disable_kicks(self) -> None:
        """Ask for no kicks."""
        self._check()
        self._set_event_flags(EVENT_DISABLE)

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next chain; True when more came since it was last looked what is available."""
        self._check()
        if self.event_idx:
            self.memory.write(self.layout.used, U16.pack(off_wrap(self._seen, self.layout.size)))
        self._set_event_flags(EVENT_DESC if self.event_idx else EVENT_ENABLE)
        return self._sees_more()

    def _sees_more(self) -> bool:
        """See all that is available; whether that is more than before."""
        before = self._seen
        while self._seen < self._avail + self.layout.size and self._available(self._seen):
            self._seen += 1
        return self._seen > before

    def _set_event_flags(self, flags: int) -> None:
        self.memory.write(self.layout.used + EVENT_FLAGS_AT, U16.pack(flags))

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _available(self, count: int) -> bool:
        """Whether AVAIL has changed there for this time round (2.8.1): USED says that it is not our own."""
        return self.desc(count)[3] & (DESC_F_AVAIL | DESC_F_USED) == self.available_marks(count)

    def _take(self) -> ModelPackedChain:
        chain = ModelPackedChain(self.memory, 0, self._avail)
        gpa, length, chain.head, flags = self._descriptor(chain)
        if flags & DESC_F_INDIRECT:
            self._walk_table(chain, gpa, length, flags)
        else:
            self._walk_list(chain, gpa, length, flags)
        if chain.head in self._in_flight:
            raise GuestError(f"buffer id {chain.head} is in flight")
        self._in_flight[chain.head] = chain.descriptors
        self._avail += chain.descriptors
        self._seen = max(self._seen, self._avail)
        return chain

    def _descriptor(self, chain: ModelPackedChain) -> tuple[int, int, int, int]:
        """The chain's next descriptor in the ring. The driver shows the first one last, so all are there (2.8.21)."""
        at = self._avail + chain.descriptors
        if at >= self.published_used + self.layout.size:
            raise GuestError(f"more than {self.layout.size} descriptors are available or in flight")
        if not self._available(at):
            raise GuestError("a list goes on with a descriptor that is not available")
        chain.descriptors += 1
        return self.desc(at)

    def _walk_list(self, chain: ModelPackedChain, gpa: int, length: int, flags: int) -> None:
        """Descriptors that NEXT links; the buffer id is the last one's (2.8.6)."""
        add_buffer(chain, gpa, length, flags)
        while flags & DESC_F_NEXT:
            gpa, length, chain.head, flags = self._descriptor(chain)
            if flags & DESC_F_INDIRECT:
                raise GuestError("an indirect descriptor in a list")
            add_buffer(chain, gpa, length, flags)

    def _walk_table(self, chain: ModelPackedChain, gpa: int, length: int, flags: int) -> None:
        """Descriptors in sequence, of whose flags WRITE alone counts (2.8.7)."""
        if not self.indirect or flags & DESC_F_NEXT:
            raise GuestError(f"indirect with flags {flags:#x}")
        entries, rest = divmod(length, PACKED_DESC.size)
        if rest or not 0 < entries <= max(self.layout.size, MAX_CHAIN_DESCRIPTORS):
            raise GuestError(f"an indirect table of {length} bytes")
        self.memory.check(gpa, length)
        for i in range(entries):
            raw = self.memory.read(gpa + PACKED_DESC.size * i, PACKED_DESC.size)
            buffer_gpa, buffer_length, _, buffer_flags = PACKED_DESC.unpack(raw)
            add_buffer(chain, buffer_gpa, buffer_length, buffer_flags)
