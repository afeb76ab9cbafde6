"""A relay's packed ring over many laps: any chains, answers in any order, back-ends that end at any moment."""

import mmap
import os
import random
import struct
from pathlib import Path

import attrs
import pytest

from acrn_dm._fastring import Chain, MemoryMap, PackedRing
from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.devices import virtio_blk
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import INDIRECT_DESC, PACKED, VERSION_1
from tests.backends.user.peers.peer import ALL, BLK_FEATURES, Peer
from tests.backends.user.user_rig import eventually

SIZE = 13  # no power of two
BATCH = 4


@attrs.define(eq=False)
class Backend:
    """Serves the shadow ring that it was told last, with a ring of ours."""

    memory: MemoryMap
    ring: PackedRing
    call_fd: int
    held: list[Chain] = attrs.field(factory=list)

    @classmethod
    def of(cls, peer: Peer) -> "Backend":
        def told(code: Request) -> bytes:
            return next(r for r in reversed(peer.seen) if r.code == code and r.payload[0] == 0).payload

        regions, bases = [], {}
        for request in peer.seen:
            if request.code == Request.ADD_MEM_REG:
                _, gpa, size, user_base, _ = struct.unpack("<5Q", request.payload)
                bases[user_base] = gpa
                regions.append((gpa, mmap.mmap(request.fds[0], size)))
        base = max(bases)
        _, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", told(Request.SET_VRING_ADDR))
        places = {name: at - base + bases[base] for name, at in (("desc", desc), ("driver", avail), ("device", used))}
        memory = MemoryMap(regions[-2:])
        ring = PackedRing(memory, size=SIZE, indirect=True, **places)
        call_fd = next(r for r in reversed(peer.seen) if r.code == Request.SET_VRING_CALL and r.payload[0] == 0).fds[0]
        return cls(memory, ring, call_fd)

    def serve(self, rng: random.Random) -> None:
        """Take what is there and answer some of what is held, in any order: each with its request's number."""
        self.held += self.ring.pop_batch()
        rng.shuffle(self.held)
        for _ in range(rng.randrange(1 + len(self.held))):
            chain = self.held.pop()
            chain.write(chain.read(8) * (chain.writable_bytes // 8))
            self.ring.push(chain)
        self.ring.publish()
        os.eventfd_write(self.call_fd, 1)

    def close(self) -> None:
        self.held.clear()
        self.ring.close()


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.stress)])
@pytest.mark.parametrize("native", [True, False], ids=["c", "python"])
def test_each_request_is_answered_once_by_its_own_data_whoever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, seed: int
) -> None:
    monkeypatch.setattr(user, "TIME_LIMIT_S", 0.2)  # what the last back-end has is left behind
    rng = random.Random(seed)
    peer = Peer(tmp_path / "s", protocol=ALL & ~ProtocolFeature.INFLIGHT_SHMFD, features=BLK_FEATURES | PACKED)
    with peer, SimMachine(plugins=[virtio_blk, vhost_user], native=native) as machine:
        machine.add("virtio-blk", f"vhost-user={peer.path},relay=on", slot=3)
        driver = machine.driver(3)
        driver.negotiate(VERSION_1 | PACKED | INDIRECT_DESC)
        queue = driver.setup_queue(0, size=SIZE)
        driver.driver_ok()
        machine.settle()
        backend, answered, numbers = Backend.of(peer), 0, 0
        while answered < 200:
            for _ in range(rng.randrange(BATCH)):
                count, indirect = rng.randrange(1, 4), rng.random() < 0.3
                if queue.ring.free_descriptors <= count:
                    break
                sizes = [8] * (count - 1)
                queue.send([numbers.to_bytes(8, "little")], [*sizes, 8], indirect=indirect)
                numbers += 1
            queue.kick(force=True)
            machine.settle()
            if rng.random() < 0.05:
                backend.close()
                peer.seen.clear()
                peer.hang_up()
                eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
                backend = Backend.of(peer)
            backend.serve(rng)
            machine.settle()
            for done in queue.completed():
                assert done.data == done.token.to_bytes(8, "little") * (len(done.data) // 8)
                assert done.written == len(done.data)
                answered += 1
        backend.close()
        assert machine.failures == []
