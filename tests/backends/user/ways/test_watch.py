"""Disks over back-ends that take no notes and have the driver's rings: what is in flight is known all the same."""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.user.plan import USER_BASE
from acrn_dm.backends.user.ways import way as user_way
from acrn_dm.backends.user.ways.relay import Relay
from acrn_dm.backends.user.ways.watch import Watch
from acrn_dm.backends.wire.message import Request
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.devices import virtio_blk
from acrn_dm.ring.layout import USED_ELEMENT
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET, PACKED
from tests.backends.user.peers.peer import ALL, Peer
from tests.backends.user.peers.shadow import Shadow
from tests.backends.user.user_rig import eventually, open_descriptors
from tests.backends.user.ways.ways_rig import backend, comes, next_backend, send
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.usefixtures("short_patience")


@attrs.define(eq=False)
class Scene:
    """A disk's driver, and what is done to its ring by the back-end that has it."""

    peer: Peer
    driver: VirtioDriver

    @classmethod
    def of(cls, peer: Peer, machine: SimMachine, options: str = "") -> "Scene":
        machine.add("virtio-blk", f"vhost-user={peer.path}{options}", slot=3)
        driver = machine.driver(3)
        driver.start(driver.registers.offered() & ~PACKED)
        return cls(peer, driver)

    @property
    def backend(self) -> VhostUser:
        return backend(self.driver.machine)

    @property
    def is_direct(self) -> bool:
        """The back-end was told of the driver's own ring last."""
        _, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", self.peer.last(Request.SET_VRING_ADDR).payload)
        layout = self.driver.queue(0).ring.layout
        return [desc, used, avail] == [USER_BASE + at for at in (layout.desc, layout.used, layout.avail)]

    @property
    def base(self) -> int:
        """The index from which the back-end was told to go on."""
        return int(struct.unpack("<II", self.peer.last(Request.SET_VRING_BASE).payload)[1])

    def send(self, count: int) -> list[int]:
        return send(self.driver, count)

    def answer(self, *heads: int) -> None:
        ring = self.driver.queue(0).ring
        for head in heads:
            used = ring.used_idx()
            ring.memory.write(ring.layout.used_element_at(used), USED_ELEMENT.pack(head, 513))
            ring._set_u16(ring.layout.used_idx_at, used + 1)

    def next_backend(self) -> None:
        next_backend(self.peer, self.driver.machine)

    @contextmanager
    def nobody(self) -> Iterator[None]:
        """The back-end ends, and meanwhile there is no other."""
        away = self.peer.path.rename(self.peer.path.with_suffix(".away"))
        self.peer.hang_up()
        eventually(self.driver.machine, lambda: not self.backend._link.connected)
        yield
        self.peer.seen.clear()
        away.rename(self.peer.path)

    def completed(self) -> int:
        self.driver.machine.settle()
        return len(self.driver.queue(0).completed())


@pytest.fixture
def scene(peer: Peer, machine: SimMachine) -> Scene:
    return Scene.of(peer, machine)


def watchers() -> int:
    return sum(thread.name == "watch" for thread in threading.enumerate())


def test_rings_and_eventfds_are_the_drivers_own(scene: Scene) -> None:
    assert scene.is_direct
    assert watchers() == 1
    scene.answer(*scene.send(3))
    os.eventfd_write(scene.peer.last(Request.SET_VRING_CALL).fds[0], 1)
    assert scene.completed() == 3


def test_next_backend_gets_exactly_what_the_last_one_owed(scene: Scene) -> None:
    heads = scene.send(5)
    scene.answer(heads[3])
    scene.next_backend()
    shadow = Shadow.of(scene.peer)
    assert shadow.heads() == [heads[0], heads[1], heads[2], heads[4]]
    assert scene.completed() == 1
    shadow.answer(0, heads[2], 513)
    assert scene.completed() == 1
    (new,) = scene.send(1)
    assert shadow.heads()[4:] == [new]
    assert scene.driver.machine.failures == []
    assert watchers() == 0


def test_what_is_in_flight_behind_the_used_index_needs_no_relay(scene: Scene) -> None:
    heads = scene.send(5)
    scene.answer(*heads[:2])
    scene.next_backend()
    assert scene.is_direct
    assert scene.base == 2
    scene.answer(heads[3])
    scene.next_backend()
    assert Shadow.of(scene.peer).heads() == [heads[2], heads[4]]
    assert scene.driver.machine.failures == []


def test_requests_that_are_made_while_nobody_is_there_come_last(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[1])
    with scene.nobody():
        assert scene.completed() == 1
        heads += scene.send(2)
    comes(scene.peer, scene.driver.machine)
    assert Shadow.of(scene.peer).heads() == [heads[0], *heads[2:]]


def test_relay_that_took_over_hands_on_what_it_has_got_itself(scene: Scene) -> None:
    heads = scene.send(4)
    scene.answer(heads[1])
    scene.next_backend()
    Shadow.of(scene.peer).answer(0, heads[2], 513)
    assert scene.completed() == 2
    scene.next_backend()
    assert Shadow.of(scene.peer).heads() == [heads[0], heads[3]]


def test_next_driver_has_its_own_rings_again(scene: Scene) -> None:
    heads = scene.send(2)
    scene.answer(heads[1])
    scene.next_backend()
    assert not scene.is_direct
    scene.driver.reset()
    scene.driver.start(scene.driver.registers.offered() & ~PACKED)
    eventually(scene.driver.machine, lambda: scene.is_direct)
    assert watchers() == 1
    assert scene.driver.machine.failures == []


def test_loss_while_nobody_knows_what_is_in_flight_asks_for_a_reset(scene: Scene) -> None:
    ring = scene.driver.queue(0).ring
    scene.send(2)
    ring.memory.write(ring.layout.used_element_at(0), USED_ELEMENT.pack(99, 1))  # which was never sent
    ring._set_u16(ring.layout.used_idx_at, 1)
    with scene.nobody():
        eventually(scene.driver.machine, lambda: bool(scene.driver.status & NEEDS_RESET))
        assert user_way.UNSEEN in str(scene.driver.machine.failures[0][1])
    scene.driver.start(scene.driver.registers.offered() & ~PACKED)
    comes(scene.peer, scene.driver.machine)
    assert scene.is_direct
    assert not scene.driver.status & NEEDS_RESET


def test_driver_that_scribbles_while_nobody_is_there_is_asked_for_a_reset(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[1])
    with scene.nobody():
        assert scene.driver.machine.failures == []
        scene.driver.queue(0).ring.make_available(heads[0])
        scene.driver.queue(0).ring.publish()
    eventually(scene.driver.machine, lambda: bool(scene.driver.status & NEEDS_RESET))


def test_chain_that_can_not_be_walked_any_more_is_the_drivers_fault(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[1])
    scene.driver.queue(0).ring.write_desc(heads[2], 1 << 60, 16)
    scene.peer.hang_up()
    eventually(scene.driver.machine, lambda: bool(scene.driver.status & NEEDS_RESET))
    scene.driver.start(scene.driver.registers.offered() & ~PACKED)
    assert not scene.driver.status & NEEDS_RESET


def test_machine_that_pauses_goes_on_where_it_was(scene: Scene) -> None:
    scene.peer.answers[Request.GET_VRING_BASE] = lambda connection, request: connection.send(
        request.code, request.payload[:4] + (1).to_bytes(4, "little")
    )
    scene.answer(*scene.send(1))
    (function,) = scene.driver.machine.bus.functions
    pause(function)
    assert watchers() == 0
    resume(function)
    assert scene.is_direct
    assert scene.base == 1
    heads = scene.send(3)
    scene.answer(heads[1])
    scene.next_backend()
    assert Shadow.of(scene.peer).heads() == [heads[0], heads[2]]
    assert scene.driver.machine.failures == []


def test_backend_that_takes_notes_after_one_that_did_not_begins_with_what_stands_in_the_ring(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[0])
    scene.peer.protocol = ALL
    scene.next_backend()
    assert scene.is_direct
    assert scene.base == 1
    assert Request.SET_INFLIGHT_FD in scene.peer.codes()
    assert watchers() == 0
    scene.answer(heads[2])  # out of order, as its notes say
    scene.next_backend()
    assert scene.is_direct
    assert scene.driver.machine.failures == []


def test_backend_that_takes_notes_is_relayed_what_it_could_not_find_in_the_ring(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[1])
    scene.peer.protocol = ALL
    scene.next_backend()
    assert Shadow.of(scene.peer).heads() == [heads[0], heads[2]]


@pytest.mark.parametrize("order", ["in order", "out of order"])
def test_next_backend_for_which_the_host_lacks_something_is_tried_again(
    scene: Scene, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = scene.send(3)
    scene.answer(heads[order != "in order"])
    left = [2]

    def full(name: str) -> object:
        real = getattr(user_way, name)

        def make(*args: object) -> object:
            left[0] -= 1
            if left[0] >= 0:
                raise HostError("too many open files")
            return real(*args)

        return make

    monkeypatch.setattr(user_way, "Watch", full("Watch"))
    monkeypatch.setattr(user_way, "ShadowArea", full("ShadowArea"))
    scene.next_backend()
    assert left[0] < 0
    assert scene.is_direct == (order == "in order")
    if order != "in order":
        assert Shadow.of(scene.peer).heads() == [heads[0], heads[2]]
    assert scene.driver.machine.failures == []


def test_what_was_left_is_owed_though_no_loop_has_looked_yet(scene: Scene) -> None:
    heads = scene.send(3)
    scene.answer(heads[1])
    watch, session = scene.backend._way._watch, scene.backend._session
    assert watch is not None
    assert session is not None
    watch.stop()
    relay = Relay(scene.backend.device, lambda relay, error: None)
    relay.begin(session, watch.left())
    relay.end(-1, 0.0)
    assert relay.owing


def test_all_queues_have_to_be_in_order_for_the_next_backend_to_have_them(peer: Peer) -> None:
    with SimMachine(plugins=[virtio_blk, vhost_user], vcpus=2) as machine:
        scene = Scene.of(peer, machine, ",mq=2")
        second = scene.driver.queue(1)
        second.send([bytes(16)], [512, 1])
        second.kick()
        heads = scene.send(2)
        scene.answer(heads[1])
        scene.next_backend()
        assert Shadow.of(peer, 0).heads() == [heads[0]]
        assert Shadow.of(peer, 1).heads() == [0]
        assert machine.failures == []


@pytest.mark.parametrize("way", ["relay=on", "small", "packed"])
def test_what_is_not_watched_is_relayed(peer: Peer, machine: SimMachine, way: str) -> None:
    machine.add("virtio-blk", f"vhost-user={peer.path}{',relay=on' if way == 'relay=on' else ''}", slot=3)
    driver = machine.driver(3)
    driver.negotiate(driver.registers.offered() & ~PACKED | (PACKED if way == "packed" else 0))
    driver.setup_queue(0, size=16 if way == "small" else 128)
    driver.driver_ok()
    machine.settle()
    assert Scene(peer, driver).backend._way.relayed
    assert watchers() == 0


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("virtio-blk", "vhost-user=/s,relay=1", "expected on or off"),
        ("virtio-blk", "vhost-user=/s,relay=on,relay=on", "'relay' is given twice"),
        ("virtio-blk", "/a.img,relay=on", "relay= is for devices at the socket of a vhost-user process"),
        ("vfio-user", "socket=/s,relay=on", "relay= is for devices at the socket of a vhost-user process"),
        ("virtio-net", "vhost-user=/s,relay=on", "relay=on is for disks"),
        ("virtio-fs", "socket=/s,tag=t,relay=on", "relay=on is for disks"),
    ],
)
def test_relay_is_refused_where_it_means_nothing(kind: str, text: str, words: str) -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match=words):
        machine.add(kind, text, slot=3)


def test_relay_off_is_as_if_nothing_were_said(peer: Peer, machine: SimMachine) -> None:
    assert Scene.of(peer, machine, ",relay=off").is_direct


def test_watch_that_can_not_be_leaves_nothing_open(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    session = scene.backend._session
    assert session is not None
    before = open_descriptors()
    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(HostError, match="watching rings: can't start new thread"):
        Watch(session, {queue.index: queue.position for queue in session.queues})
    assert open_descriptors() == before
