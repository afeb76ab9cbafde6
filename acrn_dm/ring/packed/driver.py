"""Driver side of a packed virtqueue in plain Python (virtio 1.4, 2.8), with the calls of the split one.

Positions are counts of descriptors since the ring was fresh: the slot is the remainder by the size, and each time round
turns the wrap counter over. Nothing here is shared with the device's code but the layout.
"""

from collections.abc import Iterator, Sequence

from acrn_dm.ring.driver import ReturnOrder, flagged, need_event, table_bytes
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, U16, RingLayout, RingMemory
from acrn_dm.ring.packed.layout import (
    DESC_F_AVAIL,
    DESC_F_USED,
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    EVENT_FLAGS,
    FLAGS_AT,
    PACKED_DESC,
    PACKED_EVENT,
    WRAP,
    off_wrap,
    packed_parts,
    wraps,
)
from acrn_dm.ring.position import RingPosition

Buffer = tuple[int, int, int]  # gpa, length, flags


class PackedFields:
    """Field access common to both sides."""

    def __init__(self, memory: RingMemory, layout: RingLayout) -> None:
        self.memory = memory
        self.layout = layout

    def desc_at(self, count: int) -> int:
        """Where the descriptor behind the first *count* ones stands."""
        return self.layout.desc + PACKED_DESC.size * (count % self.layout.size)

    def desc(self, count: int) -> tuple[int, int, int, int]:
        """(addr, len, id, flags) of it."""
        gpa, length, buffer_id, flags = PACKED_DESC.unpack(self.memory.read(self.desc_at(count), PACKED_DESC.size))
        return gpa, length, buffer_id, flags

    def set_flags(self, count: int, flags: int) -> None:
        """Write its flags, which shows it to the other side."""
        self.memory.write(self.desc_at(count) + FLAGS_AT, U16.pack(flags & 0xFFFF))

    def event(self, gpa: int) -> tuple[int, int]:
        """(off and wrap, flags) of the event suppression structure at *gpa*."""
        at, flags = PACKED_EVENT.unpack(self.memory.read(gpa, PACKED_EVENT.size))
        return at, flags

    def available_marks(self, count: int) -> int:
        """AVAIL and USED of a descriptor that the driver has made available there (2.8.1)."""
        return DESC_F_AVAIL if wraps(count, self.layout.size) else DESC_F_USED

    def used_marks(self, count: int) -> int:
        """AVAIL and USED of one that the device has used there."""
        return DESC_F_AVAIL | DESC_F_USED if wraps(count, self.layout.size) else 0

    def event_passed(self, event: int, new: int, old: int) -> bool:
        """Whether *event*, off and wrap, names a descriptor from *old* up to *new* (2.8.10). One of the lap before lies
        a ring's length back; then the formula of split rings decides (2.7.10).
        """
        size, off = self.layout.size, event & ~WRAP
        slot = new % size
        if event >> 15 != wraps(new, size):
            off -= size
        return need_event(off, slot, slot - (new - old))


class PackedDriverRing(PackedFields):
    """One queue's driver: ``add_chain`` as often as wanted, ``publish``, kick if ``wants_kick()``, then ``used()``.

    *start* descriptors have gone by before; the ring is cleared. With *in_order* it understands batches. *ids* are the
    buffer ids to choose from (default: as many as there are descriptors). Nothing is checked: a test may hand in any
    address.
    """

    def __init__(
        self,
        memory: RingMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        in_order: bool = False,
        start: int = 0,
        ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(memory, layout)
        self.event_idx = event_idx
        self.in_order = in_order
        self._order = ReturnOrder()
        self.next_avail = start  # descriptors written, shown or not
        self.published_avail = start  # ... that the device can see
        self.last_used = start  # where the next used descriptor is to appear
        self._before_publish = start
        self._free_ids = list(reversed(range(layout.size) if ids is None else ids))
        self._chains: dict[int, int] = {}  # buffer id -> descriptors
        self._hidden: list[tuple[int, int]] = []  # heads that publish shows: count, flags
        self._returned: list[int] = []  # where used descriptors were found, the last ones
        for part in packed_parts(layout):
            memory.write(part.gpa, bytes(part.length))
        for slot in range(layout.size if start else 0):
            self.set_flags(slot, self._stale_marks(slot, start))

    def _stale_marks(self, slot: int, start: int) -> int:
        """What a descriptor that was used the last time round looks like."""
        laps = start // self.layout.size - (slot >= start % self.layout.size)
        return self.used_marks(laps * self.layout.size)

    @property
    def free_descriptors(self) -> int:
        """Descriptors that no chain uses."""
        return self.layout.size - sum(self._chains.values())

    @property
    def ahead(self) -> int:
        """Where the next chain is going to be, as a kick with NOTIFICATION_DATA says it: offset and wrap counter
        (2.9).
        """
        return off_wrap(self.published_avail, self.layout.size)

    @property
    def position(self) -> RingPosition:
        """Where a device side begins that has seen what was returned, and nothing of what was made available since."""
        at = off_wrap(self.last_used, self.layout.size)
        return RingPosition(at | at << 16)

    def add_chain(
        self,
        out: Sequence[tuple[int, int]] = (),
        in_: Sequence[tuple[int, int]] = (),
        indirect_table_gpa: int | None = None,
    ) -> int:
        """Describe one chain of (gpa, length) buffers, readable *out* and then writable *in_*; returns its buffer id.

        With *indirect_table_gpa* the descriptors go to a table there and take one of the ring. Raises RuntimeError when
        the ring has too few descriptors left. The device sees the chain after ``publish``.
        """
        buffers = flagged(out, in_)
        if indirect_table_gpa is not None:
            self._write_table(indirect_table_gpa, buffers)
            buffers = [(indirect_table_gpa, table_bytes(len(buffers)), DESC_F_INDIRECT)]
        if len(buffers) > self.free_descriptors:
            raise RuntimeError(f"{len(buffers)} descriptors needed, {self.free_descriptors} free")
        buffer_id = self._free_ids.pop()
        self._chains[buffer_id] = len(buffers)
        if self.in_order:
            self._order.add(buffer_id, sum(length for _, length in in_))
        linked = [(gpa, length, flags | DESC_F_NEXT) for gpa, length, flags in buffers[:-1]]
        self._write([(*buffer, buffer_id) for buffer in [*linked, buffers[-1]]])
        return buffer_id

    def _write_table(self, table: int, buffers: Sequence[Buffer]) -> None:
        """An indirect table: the descriptors stand in sequence, ids and NEXT mean nothing (2.8.7)."""
        for i, (gpa, length, flags) in enumerate(buffers):
            self.memory.write(table + PACKED_DESC.size * i, PACKED_DESC.pack(gpa, length, 0, flags))

    def _write(self, descriptors: Sequence[tuple[int, int, int, int]]) -> None:
        """Put (gpa, length, flags, id) into the next descriptors, the first one's flags aside for ``publish``."""
        first = self.next_avail
        for gpa, length, raw_flags, buffer_id in descriptors:
            at = self.next_avail
            flags = raw_flags ^ self.available_marks(at)
            if at == first:
                self._hidden.append((at, flags))
                flags = self.desc(at)[3]  # as it is
            self.memory.write(self.desc_at(at), PACKED_DESC.pack(gpa, length, buffer_id, flags))
            self.next_avail += 1

    def publish(self) -> None:
        """Show everything added: the flags of the first descriptor last, so that the device sees all or nothing."""
        self._before_publish = self.published_avail
        for count, flags in reversed(self._hidden):
            self.set_flags(count, flags)
        self._hidden.clear()
        self.published_avail = self.next_avail

    def publish_behind(self) -> None:
        """Show all that was added but the first chain, which no good driver does; ``publish`` shows that."""
        for count, flags in self._hidden[1:]:
            self.set_flags(count, flags)
        del self._hidden[1:]

    def wants_kick(self, since: int | None = None) -> bool:
        """Whether the device asked to be notified of what the last ``publish`` made available, or of all *since* an
        earlier ``published_avail``.
        """
        old = self._before_publish if since is None else since
        event, flags = self.event(self.layout.used)
        if flags & EVENT_FLAGS == EVENT_DESC and self.event_idx:
            return self.event_passed(event, self.published_avail, old)
        return flags & EVENT_FLAGS != EVENT_DISABLE

    def used(self) -> list[tuple[int, int]]:
        """(buffer id, written bytes) of each chain the device returned since the last call; frees their descriptors."""
        returned: list[tuple[int, int]] = []
        for at, batch, count in self._look():
            for buffer_id, written in batch:
                self._order.returned(buffer_id, written)
                if self._chains.pop(buffer_id, None) is not None:
                    self._free_ids.append(buffer_id)
            self._returned = [*self._returned[-self.layout.size :], at]
            self.last_used = at + count
            returned += batch
        return returned

    def returned(self) -> int:
        """How many chains came back since ``used`` was last called."""
        return sum(len(batch) for _, batch, _ in self._look())

    def _look(self) -> Iterator[tuple[int, list[tuple[int, int]], int]]:
        """Each used descriptor, from the one to be expected next on: where it stands, (buffer id, written) of the
        chains that it returns, and how many descriptors they have.
        """
        at, open_, order = self.last_used, dict(self._chains), self._order.copy()
        while at < self.last_used + self.layout.size:
            _, length, buffer_id, flags = self.desc(at)
            if flags & (DESC_F_AVAIL | DESC_F_USED) != self.used_marks(at):
                return
            # 2.8.4: the length is reserved where nothing was written
            batch = order.returned(buffer_id, length if flags & DESC_F_WRITE else 0)
            count = sum(open_.pop(one, 1) for one, _ in batch)
            yield at, batch, count
            at += count

    def used_elements(self, count: int) -> list[tuple[int, int]]:
        """Where the device wrote the last *count* used descriptors: (gpa, length) of each, the latest first."""
        list(self.used())
        return [(self.desc_at(at), PACKED_DESC.size) for at in reversed(self._returned[-count:])]

    def interrupt_due(self, old: int, new: int) -> bool:
        """Whether the device owes an interrupt for going from *old* to *new* descriptors used, by what is asked now."""
        event, flags = self.event(self.layout.avail)
        if flags & EVENT_FLAGS == EVENT_DESC and self.event_idx:
            return old != new and self.event_passed(event, new, old)
        return old != new and flags & EVENT_FLAGS != EVENT_DISABLE

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next used descriptor. True when one is there already, of which none may tell."""
        if self.event_idx:
            self.interrupt_after(0)
        else:
            self.set_driver_event(0, EVENT_ENABLE)
        return self.returned() > 0

    def disable_interrupts(self) -> None:
        """Ask for none."""
        self.set_driver_event(0, EVENT_DISABLE)

    def interrupt_after(self, chains: int, length: int = 1) -> None:
        """Ask for an interrupt, by EVENT_IDX, at the chain that is returned after *chains* more of *length*
        descriptors.
        """
        self.set_driver_event(self.position_behind(chains * length), EVENT_DESC)

    def position_behind(self, count: int) -> int:
        """Off and wrap of the descriptor behind *count* more than were used."""
        return off_wrap(self.last_used + count, self.layout.size)

    def poke(self, descriptors: Sequence[tuple[int, int, int, int]], head: int = 0) -> None:
        """Make raw (gpa, length, flags, id) available, whatever they say; the last one gets *head* for its id. AVAIL
        and USED in *flags* turn these bits over.
        """
        if head in self._free_ids:
            self._free_ids.remove(head)
        self._chains[head] = len(descriptors)
        self._write([*descriptors[:-1], (*descriptors[-1][:3], head)])
        self.publish()

    def write_desc(self, slot: int, gpa: int, length: int, buffer_id: int, flags: int) -> None:
        """Poke a descriptor of the ring."""
        self.memory.write(self.desc_at(slot), PACKED_DESC.pack(gpa, length, buffer_id & 0xFFFF, flags & 0xFFFF))

    def set_driver_event(self, event: int, flags: int) -> None:
        """Poke the driver's event suppression structure."""
        self.memory.write(self.layout.avail, PACKED_EVENT.pack(event & 0xFFFF, flags & 0xFFFF))

    def device_event(self) -> tuple[int, int]:
        """(off and wrap, flags) of the device's event suppression structure."""
        return self.event(self.layout.used)
