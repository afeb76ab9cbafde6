"""Driver side of a split virtqueue in plain Python (virtio 1.4, 2.7): what feeds a device in tests.

Works over anything with ``read(gpa, length)`` and ``write(gpa, data)``. Besides behaving it can poke any field, as a
hostile guest would. Of the device's code it shares the layout, nothing else.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from acrn_dm.ring.layout import (
    AVAIL_F_NO_INTERRUPT,
    DESC,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    U16,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    RingLayout,
    RingMemory,
)
from acrn_dm.ring.position import RingPosition


def need_event(event: int, new: int, old: int) -> bool:
    """Whether an index going from *old* to *new* passes *event* + 1 (vring_need_event of 2.7.10, modulo 2^16)."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


def table_bytes(n_descriptors: int) -> int:
    """Length of an indirect table."""
    return DESC.size * n_descriptors


def flagged(out: Sequence[tuple[int, int]], in_: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(gpa, length, flags) of the buffers of a chain, readable *out* and then writable *in_*. Raises ValueError for
    none.
    """
    buffers = [(gpa, length, 0) for gpa, length in out] + [(gpa, length, DESC_F_WRITE) for gpa, length in in_]
    if not buffers:
        raise ValueError("a chain has at least one buffer")
    return buffers


class RingFields:
    """Field access common to both sides."""

    def __init__(self, memory: RingMemory, layout: RingLayout) -> None:
        self.memory = memory
        self.layout = layout

    def _get_u16(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 2), "little")

    def _set_u16(self, gpa: int, value: int) -> None:
        self.memory.write(gpa, U16.pack(value & 0xFFFF))


class ReturnOrder:
    """Chains in the order in which they were made available, as a driver with IN_ORDER keeps them: what is used may
    stand for all up to it.
    """

    def __init__(self, chains: Iterable[tuple[int, int]] = ()) -> None:
        self._chains = deque(chains)  # heads or buffer ids, and the bytes that the device may write

    def add(self, head: int, room: int) -> None:
        """One more chain, of which the device may write *room* bytes."""
        self._chains.append((head, room))

    def copy(self) -> "ReturnOrder":
        """For who wants to look only."""
        return ReturnOrder(self._chains)

    def returned(self, head: int, length: int) -> list[tuple[int, int]]:
        """(head, written) of the chains that are back with *head*: those before it were written to the end then, and
        nothing else says that they are used (2.7.9, 2.8.9).
        """
        batch: list[tuple[int, int]] = []
        if any(head == one for one, _ in self._chains):
            while self._chains[0][0] != head:
                batch.append(self._chains.popleft())
            self._chains.popleft()
        return [*batch, (head, length)]


class DriverRing(RingFields):
    """One queue's driver: ``add_chain`` as often as wanted, ``publish``, kick if ``wants_kick()``, then ``used()``.

    *start* is where both indices begin; the rings are cleared. With *in_order* it uses descriptors around the table, as
    a driver with IN_ORDER has to, and understands batches. Nothing is checked: a test may hand in any address.
    """

    def __init__(
        self,
        memory: RingMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        in_order: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__(memory, layout)
        self.event_idx = event_idx
        self.in_order = in_order
        self._order = ReturnOrder()
        self.next_avail = start  # index the next chain gets; not yet published
        self.published_avail = start  # avail.idx as the device sees it
        self.last_used = start  # index of the next used element to look at
        self._before_publish = start
        self._free = list(range(layout.size - 1, -1, -1))
        self._chains: dict[int, list[int]] = {}
        for part in layout.parts():
            memory.write(part.gpa, bytes(part.length))
        self.set_avail_idx(start)
        self._set_u16(layout.used_idx_at, start)
        self.set_used_event(start)
        self._set_u16(self.layout.avail_event_at, start)

    @property
    def free_descriptors(self) -> int:
        """Descriptors that no chain uses."""
        return len(self._free)

    @property
    def position(self) -> RingPosition:
        """Where a device side begins that has seen what was returned, and nothing of what was made available since."""
        return RingPosition(self.last_used)

    @property
    def ahead(self) -> int:
        """Where the next chain is going to be, as a kick with NOTIFICATION_DATA says it in 16 bits (2.9)."""
        return self.published_avail

    def used_elements(self, count: int) -> list[tuple[int, int]]:
        """Where the device wrote the last *count* used elements: (gpa, length) of each, the latest first."""
        latest = self.used_idx()
        return [(self.layout.used_element_at(latest - n), USED_ELEMENT.size) for n in range(1, count + 1)]

    def add_chain(
        self,
        out: Sequence[tuple[int, int]] = (),
        in_: Sequence[tuple[int, int]] = (),
        indirect_table_gpa: int | None = None,
    ) -> int:
        """Describe one chain of (gpa, length) buffers, readable *out* and then writable *in_*; returns its head.

        With *indirect_table_gpa* the descriptors go to a table there and take one of the ring. Raises RuntimeError when
        the ring has too few descriptors left. The device sees the chain after ``publish``.
        """
        buffers = flagged(out, in_)
        n_needed = len(buffers) if indirect_table_gpa is None else 1
        if n_needed > len(self._free):
            raise RuntimeError(f"{n_needed} descriptors needed, {len(self._free)} free")
        indices = [self._free.pop() for _ in range(n_needed)]
        if indirect_table_gpa is None:
            self._write_chain(self.layout.desc, indices, buffers)
        else:
            self._write_chain(indirect_table_gpa, list(range(len(buffers))), buffers)
            self.write_desc(indices[0], indirect_table_gpa, table_bytes(len(buffers)), DESC_F_INDIRECT)
        self._chains[indices[0]] = indices
        if self.in_order:
            self._order.add(indices[0], sum(length for _, length in in_))
        self.make_available(indices[0])
        return indices[0]

    def _write_chain(self, table: int, indices: list[int], buffers: list[tuple[int, int, int]]) -> None:
        following = [*indices[1:], 0]
        for i, successor, (gpa, length, flags) in zip(indices, following, buffers, strict=True):
            more = 0 if i == indices[-1] else DESC_F_NEXT
            self.memory.write(table + DESC.size * i, DESC.pack(gpa, length, flags | more, successor))

    def make_available(self, head: int) -> None:
        """Enter *head* into the available ring, whatever it names."""
        self.set_avail_entry(self.next_avail, head)
        self.next_avail = (self.next_avail + 1) & 0xFFFF

    def publish(self) -> None:
        """Raise avail.idx over everything added."""
        self._before_publish = self.published_avail
        self.set_avail_idx(self.next_avail)

    def wants_kick(self, since: int | None = None) -> bool:
        """Whether the device asked to be notified of what the last ``publish`` made available, or of all *since* an
        earlier ``published_avail``.
        """
        if self.event_idx:
            old = self._before_publish if since is None else since
            return need_event(self.avail_event(), self.published_avail, old)
        return not self.used_flags() & USED_F_NO_NOTIFY

    def used(self) -> list[tuple[int, int]]:
        """(head, written bytes) of each chain the device returned since the last call; frees their descriptors."""
        returned: list[tuple[int, int]] = []
        device_idx = self.used_idx()
        while self.last_used != device_idx:
            batch = self._order.returned(*self.used_element(self.last_used))
            if len(batch) > (device_idx - self.last_used) & 0xFFFF:
                raise RuntimeError(f"{len(batch)} chains are returned, by a used index of {device_idx}")
            for head, _ in batch:
                self._take_back(self._chains.pop(head, []))
            returned += batch
            self.last_used = (self.last_used + len(batch)) & 0xFFFF
        return returned

    def _take_back(self, chain: list[int]) -> None:
        """Free the descriptors of *chain*, to be used next, or with *in_order* last: around the table."""
        if self.in_order:
            self._free[:0] = reversed(chain)
        else:
            self._free.extend(reversed(chain))

    def returned(self) -> int:
        """How many chains came back since ``used`` was last called."""
        return (self.used_idx() - self.last_used) & 0xFFFF

    def interrupt_due(self, old: int, new: int) -> bool:
        """Whether the device owes an interrupt for moving used.idx from *old* to *new*, by what is in the rings now."""
        if self.event_idx:
            return need_event(self._get_u16(self.layout.used_event_at), new, old)
        return old != new and not self._get_u16(self.layout.avail_flags_at) & AVAIL_F_NO_INTERRUPT

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next used element. True when one is there already, of which none may tell."""
        if self.event_idx:
            self.interrupt_after(0)
        else:
            self.set_avail_flags(0)
        return self.used_idx() != self.last_used

    def disable_interrupts(self) -> None:
        """Ask for none; with EVENT_IDX by an index just passed, which comes round again in 2^16 elements."""
        if self.event_idx:
            self.set_used_event(self.last_used - 1)
        else:
            self.set_avail_flags(AVAIL_F_NO_INTERRUPT)

    def interrupt_after(self, chains: int, length: int = 1) -> None:
        """Ask for an interrupt, by EVENT_IDX, at the chain that is returned after *chains* more. Their *length* in
        descriptors counts in other formats.
        """
        self.set_used_event(self.last_used + chains)

    def poke(self, descriptors: Sequence[tuple[int, int, int, int]], head: int = 0) -> None:
        """Put raw (gpa, length, flags, next) into the table from its beginning on, and make *head* available."""
        for index, descriptor in enumerate(descriptors):
            self.write_desc(index, *descriptor)
        self.make_available(head)
        self.publish()

    def write_desc(self, index: int, gpa: int, length: int, flags: int = 0, next_: int = 0) -> None:
        """Poke entry *index* of the descriptor table."""
        self.memory.write(self.layout.desc_at(index), DESC.pack(gpa, length, flags, next_))

    def set_avail_entry(self, index: int, head: int) -> None:
        """Poke the available ring's entry for *index*."""
        self._set_u16(self.layout.avail_entry_at(index), head)

    def set_avail_idx(self, value: int) -> None:
        """Poke avail.idx."""
        self.published_avail = value & 0xFFFF
        self._set_u16(self.layout.avail_idx_at, value)

    def set_avail_flags(self, value: int) -> None:
        """Poke the available ring's flags."""
        self._set_u16(self.layout.avail_flags_at, value)

    def set_used_event(self, value: int) -> None:
        """Poke used_event: interrupt me once used.idx has passed *value*."""
        self._set_u16(self.layout.used_event_at, value)

    def used_idx(self) -> int:
        """The device's used.idx."""
        return self._get_u16(self.layout.used_idx_at)

    def used_flags(self) -> int:
        """The used ring's flags."""
        return self._get_u16(self.layout.used_flags_at)

    def used_element(self, index: int) -> tuple[int, int]:
        """(id, len) of the used ring's entry for *index*."""
        raw = self.memory.read(self.layout.used_element_at(index), USED_ELEMENT.size)
        head, length = USED_ELEMENT.unpack(raw)
        return head, length

    def avail_event(self) -> int:
        """The device's avail_event: kick me once avail.idx has passed it."""
        return self._get_u16(self.layout.avail_event_at)
