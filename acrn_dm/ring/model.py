"""Device side of a split virtqueue in plain Python, written for clarity: the oracle for ``_fastring``."""

from collections.abc import Sequence

from acrn_dm.base.errors import GuestError
from acrn_dm.ring.driver import RingFields, need_event
from acrn_dm.ring.layout import (
    AVAIL_F_NO_INTERRUPT,
    DESC,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    RingLayout,
)
from acrn_dm.ring.position import RingPosition

MAX_CHAIN_DESCRIPTORS = 1024  # through an indirect table, where the queue is smaller
MAX_BATCH = 256

Buffer = bytes | bytearray | memoryview


class ModelMemory:
    """Guest RAM of (gpa, bytearray) regions that do not overlap; the model's counterpart of MemoryMap."""

    def __init__(self, regions: Sequence[tuple[int, bytearray]]) -> None:
        self.regions = list(regions)

    def _locate(self, gpa: int, length: int) -> list[tuple[bytearray, int, int]]:
        """The (region, start, end) pieces of a range. Raises GuestError when it leaves RAM."""
        pieces: list[tuple[bytearray, int, int]] = []
        while length > 0:
            for base, ram in self.regions:
                if base <= gpa < base + len(ram):
                    step = min(length, base + len(ram) - gpa)
                    pieces.append((ram, gpa - base, gpa - base + step))
                    break
            else:
                raise GuestError(f"{length:#x} bytes at gpa {gpa:#x} are not RAM")
            gpa += step
            length -= step
        return pieces

    def check(self, gpa: int, length: int) -> None:
        """Raise GuestError unless all of the range is RAM."""
        self._locate(gpa, length)

    def read(self, gpa: int, length: int) -> bytes:
        """Copy *length* bytes at *gpa*."""
        return b"".join([bytes(ram[start:end]) for ram, start, end in self._locate(gpa, length)])

    def write(self, gpa: int, data: Buffer) -> None:
        """Copy *data* to *gpa*."""
        view = memoryview(data)
        for ram, start, end in self._locate(gpa, len(view)):
            ram[start:end] = view[: end - start]
            view = view[end - start :]


class ModelChain:
    """One descriptor chain of the model, with the reading and writing calls of ``_fastring.Chain``."""

    def __init__(self, memory: ModelMemory, head: int, position: int) -> None:
        self.memory = memory
        self.head = head
        self.position = position
        self.out: list[tuple[int, int]] = []
        self.in_: list[tuple[int, int]] = []
        self.read_offset = 0
        self.written = 0
        self.done = False

    @property
    def readable_bytes(self) -> int:
        """Length of the device-readable part."""
        return sum(length for _, length in self.out)

    @property
    def writable_bytes(self) -> int:
        """Length of the device-writable part."""
        return sum(length for _, length in self.in_)

    def read(self, length: int = -1) -> bytes:
        """The next *length* readable bytes, fewer at the end; -1 for the rest."""
        left = self.readable_bytes - self.read_offset
        count = left if length < 0 else min(length, left)
        pieces = _slice(self.out, self.read_offset, count)
        self.read_offset += count
        return b"".join(self.memory.read(gpa, n) for gpa, n in pieces)

    def write(self, data: Buffer) -> int:
        """Copy *data* to the next writable bytes; returns how many fitted."""
        count = min(len(data), self.writable_bytes - self.written)
        self.write_at(self.written, data[:count])
        return count

    def write_at(self, offset: int, data: Buffer) -> None:
        """Copy *data* to *offset* of the writable part. Raises ValueError when it does not fit."""
        if not 0 <= offset <= self.writable_bytes - len(data):
            raise ValueError(f"{len(data)} bytes at {offset} do not fit")
        view = memoryview(data)
        for gpa, n in _slice(self.in_, offset, len(data)):
            self.memory.write(gpa, view[:n])
            view = view[n:]
        self.written = max(self.written, offset + len(data))


def add_buffer(chain: ModelChain, gpa: int, length: int, flags: int) -> None:
    """Append one buffer. Raises GuestError for a wrong order, more than 2^32 - 1 bytes, and what is not RAM."""
    if length == 0:
        return
    if not flags & DESC_F_WRITE and chain.in_:
        raise GuestError("device-readable after device-writable")
    if chain.readable_bytes + chain.writable_bytes + length >= 1 << 32:
        raise GuestError("chain of 2^32 bytes or more")
    chain.memory.check(gpa, length)
    (chain.in_ if flags & DESC_F_WRITE else chain.out).append((gpa, length))


def _slice(buffers: list[tuple[int, int]], offset: int, length: int) -> list[tuple[int, int]]:
    """Cut *length* bytes from *offset* on out of consecutive (gpa, length) buffers."""
    pieces: list[tuple[int, int]] = []
    for gpa, n in buffers:
        start = min(offset, n)
        take = min(length, n - start)
        offset -= start
        length -= take
        if take:
            pieces.append((gpa + start, take))
    return pieces


class ModelSplitRing(RingFields):
    """Device side of one split virtqueue, with the calls and the decisions of ``_fastring.SplitRing``."""

    memory: ModelMemory

    def __init__(
        self,
        memory: ModelMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        next_avail: int = 0,
    ) -> None:
        super().__init__(memory, layout)
        self.event_idx = event_idx
        self.indirect = indirect
        self.next_avail = next_avail
        self.seen_avail = next_avail
        self.used_idx = next_avail
        self.published_used = next_avail
        self._wish: int | None = None  # what the driver asked for an interrupt by that is held back
        self.broken: GuestError | None = None
        self._in_flight: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Chains popped and neither pushed nor given back."""
        return len(self._in_flight)

    @property
    def position(self) -> RingPosition:
        """The next used element: what is in flight is taken again."""
        return RingPosition(self.used_idx)

    def pop_batch(self, limit: int = 64) -> list[ModelChain]:
        """Take up to *limit* chains; a malformed one ends the batch, and raises GuestError when it comes first."""
        self._check()
        if self.next_avail == self.seen_avail:
            self.avail_idx()
        waiting = (self.seen_avail - self.next_avail) & 0xFFFF
        chains: list[ModelChain] = []
        for _ in range(min(limit, waiting, MAX_BATCH)):
            try:
                chains.append(self._take())
            except GuestError as e:
                if chains:
                    break
                self.broken = e
                raise
        return chains

    def unpop(self, chains: Sequence[ModelChain]) -> None:
        """Give the chains popped last back."""
        self._check()
        first = self.next_avail - len(chains)
        if any(c.done or c.position != (first + i) & 0xFFFF for i, c in enumerate(chains)):
            raise ValueError("not the chains popped last")
        for chain in chains:
            chain.done = True
            self._in_flight.discard(chain.head)
        self.next_avail = first & 0xFFFF

    def push(self, chain: ModelChain, written: int | None = None) -> None:
        """Store the used element; the driver sees it at the next ``publish``."""
        self._check()
        count = chain.written if written is None else written
        if chain.done or not 0 <= count <= chain.writable_bytes:
            raise ValueError(f"chain {chain.head}, {count} bytes written")
        chain.done = True
        self._in_flight.discard(chain.head)
        self.memory.write(self.layout.used_element_at(self.used_idx), USED_ELEMENT.pack(chain.head, count))
        self.used_idx = (self.used_idx + 1) & 0xFFFF

    def publish(self) -> bool:
        """Show the driver everything pushed; True when it wants an interrupt for that."""
        self._check()
        old, new = self.published_used, self.used_idx
        if old == new:
            return False
        self._set_u16(self.layout.used_idx_at, new)
        self.published_used = new
        if self.event_idx:
            return need_event(self._get_u16(self.layout.used_event_at), new, old)
        return not self._get_u16(self.layout.avail_flags_at) & AVAIL_F_NO_INTERRUPT

    def hold(self) -> bool:
        """The same with the interrupt held back until ``release``; True while there is one."""
        if self.publish():
            self._wish = self._get_u16(self.layout.used_event_at) if self.event_idx else 0
        return self._wish is not None

    def release(self) -> bool:
        """True when the driver wants what was held back, and has asked for nothing else since."""
        self._check()
        wish, self._wish = self._wish, None
        if wish is None:
            return False
        if self.event_idx:
            return self._get_u16(self.layout.used_event_at) == wish
        return not self._get_u16(self.layout.avail_flags_at) & AVAIL_F_NO_INTERRUPT

    def disable_kicks(self) -> None:
        """Ask for no kicks."""
        self._check()
        if not self.event_idx:
            self._set_u16(self.layout.used_flags_at, USED_F_NO_NOTIFY)

    def enable_kicks(self) -> bool:
        """Ask for a kick at the next chain; True when more came since avail.idx was last looked at."""
        self._check()
        seen = self.seen_avail
        if self.event_idx:
            self._set_u16(self.layout.avail_event_at, seen)
        else:
            self._set_u16(self.layout.used_flags_at, 0)
        return self.avail_idx() != seen

    def avail_idx(self) -> int:
        """The driver's index, freshly loaded; more than a queue size ahead it breaks the ring."""
        self._check()
        idx = self._get_u16(self.layout.avail_idx_at)
        if (idx - self.next_avail) & 0xFFFF > self.layout.size:
            self.broken = GuestError(f"avail.idx jumped to {idx}")
            raise self.broken
        self.seen_avail = idx
        return idx

    def waiting(self) -> bool:
        """Whether chains are available that were not taken."""
        return self.avail_idx() != self.next_avail

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _take(self) -> ModelChain:
        head = self._get_u16(self.layout.avail_entry_at(self.next_avail))
        if head >= self.layout.size or head in self._in_flight:
            raise GuestError(f"head {head} outside the table or in flight")
        chain = ModelChain(self.memory, head, self.next_avail)
        self._walk(chain)
        self._in_flight.add(head)
        self.next_avail = (self.next_avail + 1) & 0xFFFF
        return chain

    def _walk(self, chain: ModelChain) -> None:
        table, entries, index = self.layout.desc, self.layout.size, chain.head
        budget, walked, nested = self.layout.size, 0, False
        while True:
            gpa, length, flags, next_ = DESC.unpack(self.memory.read(table + DESC.size * index, DESC.size))
            if flags & DESC_F_INDIRECT:
                self._check_indirect(nested, gpa, length, flags)
                table, entries, index, nested = gpa, length // DESC.size, 0, True
                budget = min(entries, max(self.layout.size, MAX_CHAIN_DESCRIPTORS) - walked)
                continue
            if budget == 0:
                raise GuestError(f"chain goes on after {walked} descriptors")
            budget, walked = budget - 1, walked + 1
            add_buffer(chain, gpa, length, flags)
            if not flags & DESC_F_NEXT:
                return
            if next_ >= entries:
                raise GuestError(f"next {next_} outside its table")
            index = next_

    def _check_indirect(self, nested: bool, gpa: int, length: int, flags: int) -> None:
        if not self.indirect or nested:
            raise GuestError("indirect not negotiated or nested")
        if flags & DESC_F_NEXT or length == 0 or length % DESC.size:
            raise GuestError(f"indirect with flags {flags:#x}, length {length}")
        self.memory.check(gpa, length)
