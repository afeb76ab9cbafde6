"""Disks over back-ends that take no notes: what is in flight is known here, and nothing they write is believed."""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user import relay as user_relay
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.base.events import eventfd
from acrn_dm.devices import virtio_blk
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import EVENT_IDX, NEEDS_RESET
from tests.backends.user.peers.peer import ALL, Peer, Received
from tests.backends.user.user_rig import eventually, jammed, open_descriptors, returns
from tests.virtio.pause import pause, resume

BOTH_WAYS = pytest.mark.parametrize("machine", [True, False], indirect=True, ids=["c", "python"])
NO_NOTES = ALL & ~ProtocolFeature.INFLIGHT_SHMFD


@attrs.define(eq=False)
class Shadow:
    """The back-end's view of the ring it was told last."""

    memory: mmap.mmap
    avail: int
    used: int
    size: int
    call_fd: int

    @classmethod
    def of(cls, peer: Peer, queue: int = 0) -> "Shadow":
        def told(code: Request) -> Received:
            return [r for r in peer.seen if r.code == code and r.payload[0] == queue][-1]

        regions = [r for r in peer.seen if r.code == Request.ADD_MEM_REG]
        _, _, size, user_base, _ = struct.unpack("<5Q", regions[-1].payload)
        _, _, _, used, avail, _ = struct.unpack("<IIQQQQ", told(Request.SET_VRING_ADDR).payload)
        memory = mmap.mmap(regions[-1].fds[0], size)
        entries = struct.unpack("<II", told(Request.SET_VRING_NUM).payload)[1]
        call_fd = told(Request.SET_VRING_CALL).fds[0]
        return cls(memory, avail - user_base, used - user_base, entries, call_fd)

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

    def answer(self, number: int, head: int, written: int, index: int | None = None) -> None:
        """Put an element into the used ring and move its index behind it, or to *index*."""
        struct.pack_into("<II", self.memory, self.used + 4 + 8 * (number % self.size), head, written)
        struct.pack_into("<H", self.memory, self.used + 2, (number + 1 if index is None else index) & 0xFFFF)
        os.eventfd_write(self.call_fd, 1)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "TIME_LIMIT_S", 0.2)  # most tests leave requests behind


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    with Peer(tmp_path / "s", protocol=NO_NOTES) as peer:
        yield peer
    assert open_descriptors() == before


@pytest.fixture
def machine(peer: Peer, request: pytest.FixtureRequest) -> Iterator[SimMachine]:
    with SimMachine(plugins=[virtio_blk, user], native=getattr(request, "param", True)) as machine:
        yield machine


@pytest.fixture
def driver(peer: Peer, machine: SimMachine) -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={peer.path}", slot=3)
    driver = machine.driver(3)
    driver.start()
    return driver


def send(driver: VirtioDriver, count: int) -> list[int]:
    """Make *count* requests; their heads."""
    queue = driver.queue(0)
    before = set(queue._sent)
    for _ in range(count):
        queue.send([bytes(16)], [512, 1])
    queue.kick()
    driver.machine.settle()
    return [head for head in queue._sent if head not in before]


@BOTH_WAYS
def test_requests_go_out_by_their_heads_and_answers_come_back(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 3)
    shadow = Shadow.of(peer)
    assert shadow.heads() == heads
    shadow.answer(0, heads[1], 513)
    driver.machine.settle()
    assert [(c.token, c.written) for c in driver.queue(0).completed()] == [(1, 513)]


@BOTH_WAYS
def test_next_backend_gets_exactly_what_the_last_one_owed(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 5)
    first = Shadow.of(peer)
    first.answer(0, heads[3], 1)
    driver.machine.settle()
    peer.seen.clear()
    peer.hang_up()
    eventually(driver.machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
    second = Shadow.of(peer)
    assert second.heads() == [heads[0], heads[1], heads[2], heads[4]]
    assert struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload) == (0, 0)


def test_requests_pass_without_python(peer: Peer, driver: VirtioDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Python was asked")

    monkeypatch.setattr(user_relay.Relay, "handle_queue", never)
    heads = send(driver, 2)
    kick_fd = [r for r in peer.seen if r.code == Request.SET_VRING_KICK and r.payload[0] == 0][-1].fds[0]
    os.eventfd_read(kick_fd)
    send(driver, 1)
    assert os.eventfd_read(kick_fd) == 1
    Shadow.of(peer).answer(0, heads[0], 1)
    driver.machine.settle()
    assert len(driver.queue(0).completed()) == 1
    assert driver.machine.failures == []


def test_old_backend_that_lives_on_can_not_answer_any_more(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 2)
    first = Shadow.of(peer)
    peer.seen.clear()
    peer.hang_up()
    eventually(driver.machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
    first.answer(0, heads[0], 1)
    driver.machine.settle()
    assert driver.queue(0).completed() == []
    assert driver.machine.failures == []


def test_event_index_is_the_relays_own_business(peer: Peer, driver: VirtioDriver) -> None:
    assert driver.features & EVENT_IDX
    told = struct.unpack("<Q", peer.last(Request.SET_FEATURES).payload)[0]
    assert not told & EVENT_IDX


def test_reset_waits_for_what_the_backend_has(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 1)
    shadow = Shadow.of(peer)
    shadow.answer(0, heads[0], 1)
    driver.reset()  # the answer is there, but no loop has looked
    assert Request.GET_VRING_BASE in peer.codes()
    assert peer.connections == 1


def test_reset_gives_up_on_a_backend_that_does_not_finish(peer: Peer, driver: VirtioDriver) -> None:
    send(driver, 1)
    driver.reset()
    driver.start()
    driver.machine.settle()
    assert not driver.status & NEEDS_RESET
    assert peer.connections == 2


@pytest.mark.parametrize(
    ("head", "written", "index"),
    [(77, 1, 1), (0xFFFFFFFF, 1, 1), (None, 514, 1), (None, 0xFFFFFFFF, 1), (None, 1, 300), (None, 1, 0xFFFF)],
    ids=["never sent", "no head", "too long", "4 GiB", "jump", "backwards"],
)
def test_nonsense_in_the_used_ring_fails_the_device(
    peer: Peer, driver: VirtioDriver, head: int | None, written: int, index: int
) -> None:
    heads = send(driver, 2)
    Shadow.of(peer).answer(0, heads[0] if head is None else head, written, index)
    driver.machine.settle()
    assert len(driver.machine.failures) == 1
    assert driver.status & NEEDS_RESET


@BOTH_WAYS
def test_head_that_is_returned_twice_fails_the_device(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 2)
    shadow = Shadow.of(peer)
    shadow.answer(0, heads[0], 1)
    shadow.answer(1, heads[0], 1)
    driver.machine.settle()
    assert len(driver.queue(0).completed()) == 1
    assert len(driver.machine.failures) == 1


def test_driver_that_resets_often_costs_no_descriptors(peer: Peer, driver: VirtioDriver) -> None:
    def ours() -> int:
        return open_descriptors() - len(peer._fds)

    before = ours()
    for _ in range(20):
        driver.reset()
        driver.start()
    assert ours() == before


def test_backend_can_not_shorten_the_shadow_rings_under_us(peer: Peer, driver: VirtioDriver) -> None:
    """An access behind the end of the file would be a SIGBUS here."""
    shadow_file = [r for r in peer.seen if r.code == Request.ADD_MEM_REG][-1].fds[0]
    with pytest.raises(PermissionError):
        os.ftruncate(shadow_file, 0)


def test_backend_can_not_shorten_guest_memory_under_us(peer: Peer, driver: VirtioDriver) -> None:
    ram = next(r for r in peer.seen if r.code == Request.ADD_MEM_REG).fds[0]
    with pytest.raises(PermissionError):
        os.ftruncate(ram, 0)


def test_kick_that_the_backend_made_blocking_and_full_does_not_stop_the_loop(peer: Peer, driver: VirtioDriver) -> None:
    with jammed(peer.last(Request.SET_VRING_KICK).fds[0]):
        assert returns(lambda: send(driver, 1))


def test_reset_gives_up_on_a_backend_that_interrupts_without_end(
    peer: Peer, driver: VirtioDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(driver, 1)
    os.eventfd_write(Shadow.of(peer).call_fd, 1)
    monkeypatch.setattr(user_relay, "drain", lambda fd: 1)  # as if it were written again at once, each time
    assert returns(driver.reset)


def test_nonsense_of_an_earlier_backend_does_not_fail_the_next_driver(peer: Peer, driver: VirtioDriver) -> None:
    send(driver, 1)
    Shadow.of(peer).answer(0, 77, 1)
    driver.machine.io_loop("io").run_until_idle()  # the main loop has not heard of it yet
    driver.reset()
    driver.start()
    driver.machine.settle()
    assert driver.machine.failures == []
    assert send(driver, 1)


@pytest.mark.parametrize("bad", [0, 1], ids=["the first", "the last"])
def test_reset_that_meets_nonsense_in_one_queue_lets_go_of_all(peer: Peer, bad: int) -> None:
    with SimMachine(plugins=[virtio_blk, user], vcpus=2) as machine:
        machine.add("virtio-blk", f"mq=2,vhost-user={peer.path}", slot=3)
        driver = machine.driver(3)
        driver.start()
        for queue in (0, 1):
            driver.queue(queue).send([bytes(16)], [512, 1])
            driver.queue(queue).kick()
        machine.settle()
        calls = [r.fds[0] for r in peer.seen if r.code == Request.SET_VRING_CALL]
        assert len(calls) == 2
        Shadow.of(peer, bad).answer(0, 77, 1)
        driver.reset()
        for call_fd in calls:  # the peer has them open: a loop that knew one would be called by it
            os.eventfd_write(call_fd, 1)
        assert machine.io_loop("io").run_until_idle() == 0
        driver.start()
        machine.settle()
        assert machine.failures == []


def test_machine_that_pauses_goes_on_where_it_was(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 1)
    Shadow.of(peer).answer(0, heads[0], 1)
    (function,) = driver.machine.bus.functions
    pause(function)
    assert len(driver.queue(0).completed()) == 1
    resume(function)
    heads = send(driver, 2)
    shadow = Shadow.of(peer)
    assert shadow.heads() == heads
    shadow.answer(0, heads[0], 1)
    driver.machine.settle()
    assert len(driver.queue(0).completed()) == 1
    assert driver.machine.failures == []


def test_machine_that_pauses_with_requests_that_nobody_finishes_fails_the_device(
    peer: Peer, driver: VirtioDriver
) -> None:
    heads = send(driver, 3)
    Shadow.of(peer).answer(0, heads[1], 1)
    driver.machine.settle()
    (function,) = driver.machine.bus.functions
    pause(function)
    resume(function)
    assert driver.status & NEEDS_RESET
