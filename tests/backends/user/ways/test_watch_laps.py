"""A watched disk over many laps: any chains, answers in any order, back-ends that end at any moment."""

import mmap
import os
import random
import struct
from pathlib import Path

import attrs
import pytest

from acrn_dm._fastring import Chain, MemoryMap, SplitRing
from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.devices import virtio_blk
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import INDIRECT_DESC, VERSION_1, DriverQueue
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.peers.peer import ALL, BLK_FEATURES, Peer
from tests.backends.user.user_rig import eventually
from tests.patience import comes_true

SIZE = 32
BATCH = 6
Region = tuple[int, int, int]  # user address, gpa, size


@attrs.define(eq=False)
class Backend:
    """Serves the ring that it was told last, be it the driver's or a shadow, with a ring of ours."""

    ring: SplitRing
    call_fd: int
    held: list[Chain] = attrs.field(factory=list)

    @classmethod
    def of(cls, peer: Peer) -> "Backend":
        def told(code: Request) -> bytes:
            return peer.last(code).payload

        regions = []
        mapped: list[tuple[int, mmap.mmap]] = []
        for request in peer.seen:
            if request.code == Request.ADD_MEM_REG:
                _, gpa, size, base, _ = struct.unpack("<5Q", request.payload)
                regions.append((base, gpa, size))
                mapped.append((gpa, mmap.mmap(request.fds[0], size)))
        _, _, *addresses, _ = struct.unpack("<IIQQQQ", told(Request.SET_VRING_ADDR))
        desc, used, avail = (place(regions, address) for address in addresses)
        base = struct.unpack("<II", told(Request.SET_VRING_BASE))[1]
        ring = SplitRing(
            MemoryMap(mapped), size=SIZE, desc=desc, avail=avail, used=used, indirect=True, next_avail=base
        )
        return cls(ring, peer.last(Request.SET_VRING_CALL).fds[0])

    def serve(self, rng: random.Random) -> None:
        """Take some of what is there and answer some of what is held, in any order: each with its request's number."""
        self.held += self.ring.pop_batch(1 + rng.randrange(BATCH))
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


def looks_on(machine: SimMachine) -> None:
    """Let the watch, if there is one, see what has passed: of much of a ring at once nobody knows."""
    function = machine.bus.functions[0]
    assert isinstance(function, VirtioPci)
    assert isinstance(function.data_plane.backend, VhostUser)
    watch = function.data_plane.backend._way._watch
    if watch is not None and watch.looks:
        before = watch._sampler.samples
        assert comes_true(lambda: watch._sampler.samples > before)


def send(queue: DriverQueue, rng: random.Random, number: int) -> int:
    """Some requests from *number* on; the next number."""
    for _ in range(rng.randrange(BATCH)):
        count, indirect = rng.randrange(1, 4), rng.random() < 0.3
        if queue.ring.free_descriptors <= count:
            break
        queue.send([number.to_bytes(8, "little")], [8] * count, indirect=indirect)
        number += 1
    queue.kick(force=True)
    return number


@pytest.mark.parametrize("seed", [*range(5), pytest.param(5, marks=pytest.mark.stress)])
def test_each_request_is_answered_once_by_its_own_data_whoever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(user, "TIME_LIMIT_S", 0.2)  # what the last back-end has is left behind
    rng = random.Random(seed)
    peer = Peer(tmp_path / "s", protocol=ALL & ~ProtocolFeature.INFLIGHT_SHMFD, features=BLK_FEATURES)
    with peer, SimMachine(plugins=[virtio_blk, vhost_user]) as machine:
        machine.add("virtio-blk", f"vhost-user={peer.path}", slot=3)
        driver = machine.driver(3)
        driver.negotiate(VERSION_1 | INDIRECT_DESC)
        queue = driver.setup_queue(0, size=SIZE)
        driver.driver_ok()
        machine.settle()
        backend, answered, numbers = Backend.of(peer), set[int](), 0
        while len(answered) < 200:
            numbers = send(queue, rng, numbers)
            machine.settle()
            if rng.random() < 0.1:
                backend.close()
                peer.seen.clear()
                peer.hang_up()
                eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
                backend = Backend.of(peer)
            backend.serve(rng)
            machine.settle()
            looks_on(machine)
            for done in queue.completed():
                assert done.data == done.token.to_bytes(8, "little") * (len(done.data) // 8)
                assert done.token not in answered
                answered.add(done.token)
        backend.close()
        assert machine.failures == []
