"""Driver side of a split virtqueue in plain Python (virtio 1.4, 2.7): what feeds a device in tests.

Works over anything with ``read(gpa, length)`` and ``write(gpa, data)``. Besides behaving it can poke any field, as a
hostile guest would. It knows nothing of the device's code.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

import attrs

DESC = struct.Struct("<QIHH")  # addr, len, flags, next
USED_ELEMENT = struct.Struct("<II")  # id, len
U16 = struct.Struct("<H")

DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1


def need_event(event: int, new: int, old: int) -> bool:
    """Whether an index going from *old* to *new* passes *event* + 1 (vring_need_event of 2.7.10, modulo 2^16)."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


class RingMemory(Protocol):
    """Guest RAM, as far as a driver needs it; both raise GuestError outside RAM."""

    def read(self, gpa: int, length: int, /) -> bytes:
        """Copy *length* bytes at *gpa*."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Copy *data* to *gpa*."""


@attrs.frozen(kw_only=True)
class RingLayout:
    """Size of a queue and the guest addresses of its three parts."""

    size: int
    desc: int = attrs.field(repr=hex)
    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)

    @classmethod
    def at(cls, gpa: int, size: int, align: int = 4) -> "RingLayout":
        """Lay the parts out one after the other from *gpa* on; *align* 4096 gives the legacy layout of 2.7.2."""
        avail = gpa + DESC.size * size
        used = (avail + 6 + 2 * size + align - 1) // align * align
        return cls(size=size, desc=gpa, avail=avail, used=used)

    @property
    def end(self) -> int:
        """First address after the used ring."""
        return self.used + 6 + USED_ELEMENT.size * self.size


class RingFields:
    """Field access common to both sides."""

    def __init__(self, memory: RingMemory, layout: RingLayout) -> None:
        self.memory = memory
        self.layout = layout

    def _get_u16(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 2), "little")

    def _set_u16(self, gpa: int, value: int) -> None:
        self.memory.write(gpa, U16.pack(value & 0xFFFF))

    def _slot(self, index: int) -> int:
        return index % self.layout.size

    @property
    def _used_event_gpa(self) -> int:
        return self.layout.avail + 4 + 2 * self.layout.size

    @property
    def _avail_event_gpa(self) -> int:
        return self.layout.used + 4 + USED_ELEMENT.size * self.layout.size


class DriverRing(RingFields):
    """One queue's driver: ``add_chain`` as often as wanted, ``publish``, kick if ``wants_kick()``, then ``used()``.

    *start* is where both indices begin; the rings are cleared. Nothing is checked: a test may hand in any address.
    """

    def __init__(self, memory: RingMemory, layout: RingLayout, *, event_idx: bool = False, start: int = 0) -> None:
        super().__init__(memory, layout)
        self.event_idx = event_idx
        self.next_avail = start  # index the next chain gets; not yet published
        self.published_avail = start  # avail.idx as the device sees it
        self.last_used = start  # index of the next used element to look at
        self._before_publish = start
        self._free = list(range(layout.size - 1, -1, -1))
        self._chains: dict[int, list[int]] = {}
        memory.write(layout.desc, bytes(DESC.size * layout.size))
        memory.write(layout.avail, bytes(6 + 2 * layout.size))
        memory.write(layout.used, bytes(6 + USED_ELEMENT.size * layout.size))
        self.set_avail_idx(start)
        self._set_u16(layout.used + 2, start)
        self.set_used_event(start)
        self._set_u16(self._avail_event_gpa, start)

    @property
    def free_descriptors(self) -> int:
        """Descriptors that no chain uses."""
        return len(self._free)

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
        buffers = [(gpa, length, 0) for gpa, length in out] + [(gpa, length, DESC_F_WRITE) for gpa, length in in_]
        if not buffers:
            raise ValueError("a chain has at least one buffer")
        n_needed = len(buffers) if indirect_table_gpa is None else 1
        if n_needed > len(self._free):
            raise RuntimeError(f"{n_needed} descriptors needed, {len(self._free)} free")
        indices = [self._free.pop() for _ in range(n_needed)]
        if indirect_table_gpa is None:
            self._write_chain(self.layout.desc, indices, buffers)
        else:
            self._write_chain(indirect_table_gpa, list(range(len(buffers))), buffers)
            self.write_desc(indices[0], indirect_table_gpa, DESC.size * len(buffers), DESC_F_INDIRECT)
        self._chains[indices[0]] = indices
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

    def wants_kick(self) -> bool:
        """Whether the device asked to be notified of what the last ``publish`` made available."""
        if self.event_idx:
            return need_event(self.avail_event(), self.published_avail, self._before_publish)
        return not self.used_flags() & USED_F_NO_NOTIFY

    def used(self) -> list[tuple[int, int]]:
        """(head, written bytes) of each chain the device returned since the last call; frees their descriptors."""
        returned: list[tuple[int, int]] = []
        device_idx = self.used_idx()
        while self.last_used != device_idx:
            head, length = self.used_element(self.last_used)
            self._free.extend(reversed(self._chains.pop(head, [])))
            returned.append((head, length))
            self.last_used = (self.last_used + 1) & 0xFFFF
        return returned

    def interrupt_due(self, old: int, new: int) -> bool:
        """Whether the device owes an interrupt for moving used.idx from *old* to *new*, by what is in the rings now."""
        if self.event_idx:
            return need_event(self._get_u16(self._used_event_gpa), new, old)
        return old != new and not self._get_u16(self.layout.avail) & AVAIL_F_NO_INTERRUPT

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next used element. True when one is there already, of which none may tell."""
        if self.event_idx:
            self.set_used_event(self.last_used)
        else:
            self.set_avail_flags(0)
        return self.used_idx() != self.last_used

    def disable_interrupts(self) -> None:
        """Ask for none; with EVENT_IDX by an index just passed, which comes round again in 2^16 elements."""
        if self.event_idx:
            self.set_used_event(self.last_used - 1)
        else:
            self.set_avail_flags(AVAIL_F_NO_INTERRUPT)

    def write_desc(self, index: int, gpa: int, length: int, flags: int = 0, next_: int = 0) -> None:
        """Poke entry *index* of the descriptor table."""
        self.memory.write(self.layout.desc + DESC.size * index, DESC.pack(gpa, length, flags, next_))

    def set_avail_entry(self, index: int, head: int) -> None:
        """Poke the available ring's entry for *index*."""
        self._set_u16(self.layout.avail + 4 + 2 * self._slot(index), head)

    def set_avail_idx(self, value: int) -> None:
        """Poke avail.idx."""
        self.published_avail = value & 0xFFFF
        self._set_u16(self.layout.avail + 2, value)

    def set_avail_flags(self, value: int) -> None:
        """Poke the available ring's flags."""
        self._set_u16(self.layout.avail, value)

    def set_used_event(self, value: int) -> None:
        """Poke used_event: interrupt me once used.idx has passed *value*."""
        self._set_u16(self._used_event_gpa, value)

    def used_idx(self) -> int:
        """The device's used.idx."""
        return self._get_u16(self.layout.used + 2)

    def used_flags(self) -> int:
        """The used ring's flags."""
        return self._get_u16(self.layout.used)

    def used_element(self, index: int) -> tuple[int, int]:
        """(id, len) of the used ring's entry for *index*."""
        raw = self.memory.read(self.layout.used + 4 + USED_ELEMENT.size * self._slot(index), USED_ELEMENT.size)
        head, length = USED_ELEMENT.unpack(raw)
        return head, length

    def avail_event(self) -> int:
        """The device's avail_event: kick me once avail.idx has passed it."""
        return self._get_u16(self._avail_event_gpa)
