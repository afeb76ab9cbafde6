"""A disk over many laps of its ring: any chains, answers in any order, back-ends that end at any moment."""

import mmap
import os
import random
import struct
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain, MemoryMap
from acrn_dm.backends.wire.message import Request
from acrn_dm.ring.factory import make_ring
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import DriverQueue
from tests.backends.user.peers.peer import Peer
from tests.backends.user.ways.ways_rig import next_backend
from tests.ring.formats import Placed

REQUESTS = 200
Region = tuple[int, int, int]  # user address, gpa, size


@attrs.define(eq=False)
class Backend:
    """Serves the ring that it was told last, be it the driver's or a shadow, with a ring of ours."""

    ring: Ring
    call_fd: int
    held: list[Chain] = attrs.field(factory=list)

    @classmethod
    def of(cls, peer: Peer) -> "Backend":
        def told(code: Request, form: str) -> tuple[int, ...]:
            return struct.unpack(form, peer.last(code).payload)

        regions = []
        mapped: list[tuple[int, mmap.mmap]] = []
        for added in peer.seen:
            if added.code == Request.ADD_MEM_REG:
                _, gpa, size, base, _ = struct.unpack("<5Q", added.payload)
                regions.append((base, gpa, size))
                mapped.append((gpa, mmap.mmap(added.fds[0], size)))
        _, _, *addresses, _ = told(Request.SET_VRING_ADDR, "<IIQQQQ")
        desc, used, avail = (place(regions, address) for address in addresses)
        layout = RingLayout(size=told(Request.SET_VRING_NUM, "<II")[1], desc=desc, avail=avail, used=used)
        placed = Placed(layout, RingPosition(told(Request.SET_VRING_BASE, "<II")[1]))
        ring = make_ring(told(Request.SET_FEATURES, "<Q")[0], placed, MemoryMap(mapped))
        return cls(ring, peer.last(Request.SET_VRING_CALL).fds[0])

    def serve(self, rng: random.Random, most: int) -> None:
        """Take *most* requests or fewer, and answer some of what is held, in any order: each with its number."""
        self.held += self.ring.pop_batch(1 + rng.randrange(most))
        for _ in range(rng.randrange(1 + len(self.held))):
            chain = self.held.pop(rng.randrange(len(self.held)))
            chain.write(chain.read(8) * (chain.writable_bytes // 8))
            self.ring.push(chain)
        self.ring.publish()
        os.eventfd_write(self.call_fd, 1)

    def close(self) -> None:
        self.held.clear()
        self.ring.close()


def place(regions: list[Region], address: int) -> int:
    """The guest address that a ring address means."""
    return next(gpa + address - base for base, gpa, size in regions if base <= address < base + size)


def offer(queue: DriverQueue, rng: random.Random, number: int, most: int) -> int:
    """Fewer than *most* requests, from *number* on; the next number."""
    for _ in range(rng.randrange(most)):
        count, indirect = rng.randrange(1, 4), rng.random() < 0.3
        if queue.ring.free_descriptors <= count:
            break
        queue.send([number.to_bytes(8, "little")], [8] * count, indirect=indirect)
        number += 1
    queue.kick(force=True)
    return number


def play(
    peer: Peer,
    machine: SimMachine,
    rng: random.Random,
    *,
    features: int,
    size: int,
    most: int,
    losses: float,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Have a disk's driver with *features* and a ring of *size* make REQUESTS and more, *most* at a time, of
    back-ends that end with this chance a turn; *look* is called each turn. Each is answered once, by its own data.
    """
    driver = machine.driver(3)
    driver.negotiate(features)
    queue = driver.setup_queue(0, size=size)
    driver.driver_ok()
    machine.settle()
    backend, answered, number = Backend.of(peer), set[int](), 0
    while len(answered) < REQUESTS:
        number = offer(queue, rng, number, most)
        machine.settle()
        if rng.random() < losses:
            backend.close()
            next_backend(peer, machine)
            backend = Backend.of(peer)
        backend.serve(rng, most)
        machine.settle()
        look()
        for done in queue.completed():
            assert done.data == done.token.to_bytes(8, "little") * (len(done.data) // 8)
            assert done.written == len(done.data)
            assert done.token not in answered
            answered.add(done.token)
    backend.close()
    assert machine.failures == []
