"""A back-end's view of the shadow ring that it was told last, of either format; it answers whatever a test says."""

import mmap
import os
import struct

import attrs

from acrn_dm.backends.wire.message import Request
from acrn_dm.ring.features import PACKED
from tests.backends.user.peers.peer import Peer, Received

NEXT, WRITE, AVAIL, USED = 1, 2, 1 << 7, 1 << 15
DESC = struct.Struct("<QIHH")


@attrs.define(eq=False)
class Shadow:
    """A split one: the rings without the table."""

    memory: mmap.mmap
    desc: int
    avail: int
    used: int
    size: int
    call_fd: int

    @classmethod
    def of(cls, peer: Peer, queue: int = 0) -> "Shadow":
        """That of *queue*, of the format that was agreed."""

        def told(code: Request) -> Received:
            return [r for r in peer.seen if r.code == code and r.payload[0] == queue][-1]

        regions = [r for r in peer.seen if r.code == Request.ADD_MEM_REG]
        _, _, size, user_base, _ = struct.unpack("<5Q", regions[-1].payload)
        _, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", told(Request.SET_VRING_ADDR).payload)
        memory = mmap.mmap(regions[-1].fds[0], size)
        entries = struct.unpack("<II", told(Request.SET_VRING_NUM).payload)[1]
        call_fd = told(Request.SET_VRING_CALL).fds[0]
        features = int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little")
        kind = PackedShadow if features & PACKED else Shadow
        return kind(memory, desc - user_base, avail - user_base, used - user_base, entries, call_fd)

    def heads(self) -> list[int]:
        """What is available since the start."""
        count = struct.unpack_from("<H", self.memory, self.avail + 2)[0]
        return list(struct.unpack_from(f"<{count}H", self.memory, self.avail + 4))

    def available(self) -> int:
        """The index behind what is available."""
        return int(struct.unpack_from("<H", self.memory, self.avail + 2)[0])

    def head(self, number: int) -> int:
        """Entry *number*, counted from the start."""
        return int(struct.unpack_from("<H", self.memory, self.avail + 4 + 2 * (number % self.size))[0])

    def answer(self, number: int, head: int, written: int, index: int | None = None, *, tell: bool = True) -> None:
        """Put an element into the used ring and move its index behind it, or to *index*."""
        struct.pack_into("<II", self.memory, self.used + 4 + 8 * (number % self.size), head, written)
        struct.pack_into("<H", self.memory, self.used + 2, (number + 1 if index is None else index) & 0xFFFF)
        if tell:
            os.eventfd_write(self.call_fd, 1)

    @property
    def wants_no_calls(self) -> bool:
        """Whether the relay looks by itself (NO_INTERRUPT)."""
        return bool(self.memory[self.avail] & 1)

    def want_kicks(self, wanted: bool) -> None:
        """Whether to be told of what becomes available (NO_NOTIFY)."""
        self.memory[self.used] = not wanted


@attrs.define(eq=False)
class PackedShadow(Shadow):
    """A packed one, in its first lap."""

    lengths: dict[int, int] = attrs.field(factory=dict)  # of the lists that were seen, by their buffer id
    next_used: int = 0

    def lists(self) -> list[list[tuple[int, int, int, int]]]:
        """(addr, len, id, flags) of each descriptor that is or was available, by lists."""
        found: list[list[tuple[int, int, int, int]]] = [[]]
        for slot in range(self.next_used, self.size):
            one = DESC.unpack_from(self.memory, self.desc + DESC.size * slot)
            if one[3] & (AVAIL | USED) != AVAIL:
                break
            found[-1].append(one)
            if not one[3] & NEXT:
                found.append([])
        return found[:-1]

    def heads(self) -> list[int]:
        """Buffer ids of the lists."""
        self.lengths |= {one[-1][2]: len(one) for one in self.lists()}
        return [one[-1][2] for one in self.lists()]

    def answer(self, number: int, head: int, written: int, index: int | None = None, *, tell: bool = True) -> None:
        """Use the next descriptor for *head*, behind the lists that were used before."""
        self.heads()
        at = self.desc + DESC.size * self.next_used
        struct.pack_into("<IHH", self.memory, at + 8, written, head & 0xFFFF, AVAIL | USED | WRITE)
        self.next_used += self.lengths.get(head, 1)
        if tell:
            os.eventfd_write(self.call_fd, 1)
