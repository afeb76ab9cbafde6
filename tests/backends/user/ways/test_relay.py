"""Disks over back-ends that take no notes: what is in flight is known here, and nothing they write is believed."""

import os
import struct

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user.ways import relay as user_relay
from acrn_dm.backends.wire.message import Request
from acrn_dm.devices import virtio_blk
from acrn_dm.ring.packed.shadow import _linked
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import EVENT_IDX, NEEDS_RESET, PACKED
from tests.backends.user.peers.peer import Peer
from tests.backends.user.peers.shadow import PackedShadow, Shadow
from tests.backends.user.user_rig import jammed, open_descriptors, returns
from tests.backends.user.ways.ways_rig import next_backend, send
from tests.virtio.pause import pause, resume

BOTH_WAYS = pytest.mark.parametrize("machine", [True, False], indirect=True, ids=["c", "python"])

pytestmark = pytest.mark.usefixtures("short_patience")


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def wanted(request: pytest.FixtureRequest) -> int:
    """The ring format that the driver chooses."""
    return int(request.param)


@pytest.fixture
def driver(peer: Peer, machine: SimMachine, wanted: int) -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={peer.path},relay=on", slot=3)
    driver = machine.driver(3)
    restart(driver, wanted)
    return driver


def restart(driver: VirtioDriver, wanted: int) -> None:
    driver.start(driver.registers.offered() & ~PACKED | wanted)


@BOTH_WAYS
def test_requests_go_out_by_their_heads_and_answers_come_back(peer: Peer, driver: VirtioDriver) -> None:
    heads = send(driver, 3)
    shadow = Shadow.of(peer)
    assert shadow.heads() == heads
    shadow.answer(0, heads[1], 513)
    driver.machine.settle()
    assert [(c.token, c.written) for c in driver.queue(0).completed()] == [(1, 513)]


@BOTH_WAYS
def test_next_backend_gets_exactly_what_the_last_one_owed(peer: Peer, driver: VirtioDriver, wanted: int) -> None:
    heads = send(driver, 5)
    first = Shadow.of(peer)
    first.answer(0, heads[3], 1)
    driver.machine.settle()
    next_backend(peer, driver.machine)
    second = Shadow.of(peer)
    assert second.heads() == [heads[0], heads[1], heads[2], heads[4]]
    assert struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload) == (0, 0x8000_8000 if wanted else 0)


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
    next_backend(peer, driver.machine)
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


def test_reset_gives_up_on_a_backend_that_does_not_finish(peer: Peer, driver: VirtioDriver, wanted: int) -> None:
    send(driver, 1)
    driver.reset()
    restart(driver, wanted)
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
    if driver.features & PACKED and index != 1:
        pytest.skip("packed rings have no index")
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


def test_driver_that_resets_often_costs_no_descriptors(peer: Peer, driver: VirtioDriver, wanted: int) -> None:
    def ours() -> int:
        return open_descriptors() - len(peer._fds)

    before = ours()
    for _ in range(20):
        driver.reset()
        restart(driver, wanted)
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


def test_nonsense_of_an_earlier_backend_does_not_fail_the_next_driver(
    peer: Peer, driver: VirtioDriver, wanted: int
) -> None:
    send(driver, 1)
    Shadow.of(peer).answer(0, 77, 1)
    driver.machine.io_loop("io").run_until_idle()  # the main loop has not heard of it yet
    driver.reset()
    restart(driver, wanted)
    driver.machine.settle()
    assert driver.machine.failures == []
    assert send(driver, 1)


@pytest.mark.parametrize("bad", [0, 1], ids=["the first", "the last"])
def test_reset_that_meets_nonsense_in_one_queue_lets_go_of_all(peer: Peer, bad: int, wanted: int) -> None:
    with SimMachine(plugins=[virtio_blk, vhost_user], vcpus=2) as machine:
        machine.add("virtio-blk", f"mq=2,vhost-user={peer.path},relay=on", slot=3)
        driver = machine.driver(3)
        restart(driver, wanted)
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
        restart(driver, wanted)
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


@BOTH_WAYS
def test_descriptors_that_used_ones_were_written_over_go_to_the_next_backend_as_they_were(
    peer: Peer, driver: VirtioDriver, wanted: int
) -> None:
    """The second chain comes back first, over the place of the first one, which later chains have on the next lap."""
    if not wanted:
        pytest.skip("the table of a split ring stays as it is")
    ring = driver.queue(0).ring
    heads = send(driver, 2)
    first = Shadow.of(peer)
    assert isinstance(first, PackedShadow)
    before = [[one[:2] for one in chain] for chain in first.lists()]
    first.answer(0, heads[1], 513)
    driver.machine.settle()
    assert len(driver.queue(0).completed()) == 1
    while ring.free_descriptors >= 3:  # into what was used
        heads += send(driver, 1)
    next_backend(peer, driver.machine)
    second = Shadow.of(peer)
    assert isinstance(second, PackedShadow)
    assert second.heads() == [heads[0], *heads[2:]]
    assert [one[:2] for one in second.lists()[0]] == before[0]
    second.answer(0, heads[0], 513)
    driver.machine.settle()
    (done,) = driver.queue(0).completed()
    assert (done.token, done.written) == (0, 513)
    assert driver.machine.failures == []


def test_list_that_its_driver_changes_meanwhile_keeps_its_length(peer: Peer, driver: VirtioDriver, wanted: int) -> None:
    """NEXT and the marks are ours: a driver that writes to descriptors of the device's gains nothing by it."""
    if not wanted:
        pytest.skip("the table of a split ring is the driver's own")
    raw = struct.pack("<QIHH", 0x1000, 16, 0, 4 | 1 << 7) + struct.pack("<QIHH", 0x2000, 16, 9, 1 | 2 | 1 << 15)
    assert [flags for _, _, flags, _ in _linked(raw)] == [4 | 1, 2]
