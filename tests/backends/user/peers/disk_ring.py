"""A running split ring of ``disk``: what is taken, done and returned is noted on the way.

Requests are done, and returned in batches, in no particular order, so that the available ring does not tell what is in
flight; only those that a dead process has left behind are done first, in the order in which they had been taken.
"""

import os
import random
import select
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from acrn_dm.base.events.eventfd import drain
from acrn_dm.ring.driver import RingFields
from acrn_dm.ring.layout import (
    DESC,
    DESC_F_NEXT,
    DESC_F_WRITE,
    USED_ELEMENT,
    RingLayout,
    RingMemory,
)
from tests.backends.user.peers.inflight_region import QueueNotes

Buffers = list[tuple[int, int]]  # guest address, length
Execute = Callable[[int, int, Buffers, RingMemory], tuple[int, int]]  # returns the status and how much was read
STEPS = ("linked", "used", "half-cleared", "cleared", "noted")  # of returning a batch, each named by what is done then


@attrs.frozen(kw_only=True)
class Conduct:
    """What a process does with each of its rings. A request takes *latency* seconds. It does none before *gather* of
    them wait, and none after *limit*, unless the ring is stopped; with *die* it kills itself after that step of the
    batch that reaches the limit.
    """

    batch: int
    latency: float
    gather: int
    limit: int
    die: str | None


class Ring(RingFields):
    """See the module. *base* is what SET_VRING_BASE said, *eventfds* are for kick and call."""

    def __init__(
        self,
        index: int,
        memory: RingMemory,
        layout: RingLayout,
        *,
        base: int,
        eventfds: tuple[int, int],
        notes: QueueNotes,
        conduct: Conduct,
        execute: Execute,
    ) -> None:
        super().__init__(memory, layout)
        self._index, self._notes, self._execute = index, notes, execute
        self._kick_fd, self._call_fd = eventfds
        self._used_idx = self._get_u16(layout.used_idx_at)
        notes.recover(self._used_idx)
        left = notes.in_flight()
        self._left, self._taken = deque(left), list[int]()
        self._counter = max(left.values(), default=-1) + 1
        self.next_avail = (base + len(left)) & 0xFFFF
        self._conduct = conduct
        self._random = random.Random(index)
        self._stopping = threading.Event()
        say("owes", index, *left)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more, and finish what was taken."""
        self._stopping.set()
        os.eventfd_write(self._kick_fd, 1)
        self._thread.join()

    def _run(self) -> None:
        select.select([self._kick_fd], [], [])  # a kick starts a ring
        while not self._stopping.is_set():
            drain(self._kick_fd)
            self._take()
            if not self._work():
                select.select([self._kick_fd], [], [])
        self._conduct = attrs.evolve(self._conduct, gather=0, limit=1 << 63)
        while self._work():
            pass

    def _take(self) -> None:
        while self.next_avail != self._get_u16(self.layout.avail_idx_at):
            head = self._get_u16(self.layout.avail_entry_at(self.next_avail))
            self._notes.take(head, self._counter)
            self._taken.append(head)
            self._counter += 1
            self.next_avail = (self.next_avail + 1) & 0xFFFF

    def _work(self) -> bool:
        """Do one batch, if there is one to be done."""
        conduct = self._conduct
        count = min(conduct.batch, conduct.limit, len(self._left) + len(self._taken))
        if not count or len(self._taken) < conduct.gather:
            return False
        self._conduct = attrs.evolve(conduct, gather=0, limit=conduct.limit - count)
        self._return([(head, self._do(head)) for head in [self._choose() for _ in range(count)]])
        return True

    def _choose(self) -> int:
        return self._left.popleft() if self._left else self._taken.pop(self._random.randrange(len(self._taken)))

    def _return(self, done: list[tuple[int, int]]) -> None:
        used = self._used_idx
        for number, (head, written) in enumerate(done, used):
            self.memory.write(self.layout.used_element_at(number), USED_ELEMENT.pack(head, written))
            self._notes.link(head)
        self._reached("linked")
        self._used_idx = (used + len(done)) & 0xFFFF
        self._set_u16(self.layout.used_idx_at, self._used_idx)
        self._reached("used")
        for head, _ in done:
            self._notes.clear(head)
            self._reached("half-cleared")
        self._reached("cleared")
        self._notes.used_idx = self._used_idx
        self._reached("noted")
        os.eventfd_write(self._call_fd, 1)

    def _reached(self, step: str) -> None:
        if step == self._conduct.die and not self._conduct.limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def _do(self, head: int) -> int:
        """Execute the request; returns how many bytes were written to the driver's memory."""
        chain = self._chain(head)
        header, (status, _) = chain[0], chain[-1]
        kind, sector = struct.unpack("<I4xQ", self.memory.read(header[0], 16))
        say("does", self._index, head, kind, sector)
        time.sleep(self._conduct.latency)
        verdict, written = self._execute(kind, sector, chain[1:-1], self.memory)
        self.memory.write(status, bytes([verdict]))
        return written + 1

    def _chain(self, head: int) -> Buffers:
        """Its buffers, of which the first is the header and the last takes the status."""
        buffers: Buffers = []
        index, flags = head, DESC_F_NEXT
        while flags & DESC_F_NEXT:
            gpa, length, flags, index = DESC.unpack(self.memory.read(self.layout.desc + DESC.size * index, DESC.size))
            buffers.append((gpa, length))
        assert flags & DESC_F_WRITE
        return buffers


def say(*words: object) -> None:
    """One line, in one piece, from any thread."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
