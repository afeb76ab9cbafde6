"""Back-ends of our own making that come and go: what the next one is told, and what a driver notices."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.backends.wire.message import Request
from acrn_dm.base.errors import HostError
from acrn_dm.devices import virtio_blk, virtio_console, virtio_net
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import NEEDS_RESET
from tests.backends.user.machines import disk, sim
from tests.backends.user.peers.peer import NO_NOTES, Connection, Peer, Received
from tests.backends.user.user_rig import eventually, jammed, returns

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


def test_nobody_at_the_socket_is_one_error_that_names_it(socket_path: Path) -> None:
    machine = sim()
    machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
    with pytest.raises(HostError, match=str(socket_path)):
        machine.driver(3)
    machine.close()


@pytest.mark.parametrize("kind", ["virtio-blk", "virtio-net", "virtio-console"])
def test_missing_socket_is_said_before_anything_is_opened(socket_path: Path, kind: str) -> None:
    machine = SimMachine(plugins=[virtio_blk, virtio_net, virtio_console, vhost_user])
    function = machine.add(kind, f"vhost-user={socket_path}", slot=3)
    told = f"{kind}-3:0: backend vhost-user: socket {socket_path}: no such file or directory"
    assert function.check() == [f"{told}; is the vhost-user process running?"]
    machine.close()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (Path.touch, "{} is no socket"),
        (Path.mkdir, "{} is no socket"),
        (lambda path: path.symlink_to(path), "socket {}: too many levels of symbolic links"),
    ],
)
def test_file_that_is_no_socket_is_said_before_anything_is_opened(
    socket_path: Path, make: Callable[[Path], None], word: str
) -> None:
    make(socket_path)
    machine = sim()
    (line,) = machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3).check()
    assert word.format(socket_path) in line
    machine.close()


def test_check_does_not_disturb_the_backend(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        function = machine.add("virtio-blk", f"vhost-user={socket_path}", slot=3)
        assert function.check() == []
        machine.driver(3)
        assert peer.connections == 1


def test_next_driver_s_rings_have_a_region_of_their_own(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        first = os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino
        driver.reset()
        peer.seen.clear()
        driver.start()
        assert Request.GET_INFLIGHT_FD in peer.codes()
        assert os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino != first


def test_next_backend_gets_the_notes_of_the_last_and_the_ring_where_it_was(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        region = os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino
        description = peer.last(Request.SET_INFLIGHT_FD).payload
        queue = driver.queue(0)
        queue.send([bytes(16)], [1])
        machine.memory.write(queue.ring.layout.used + 2, (5).to_bytes(2, "little"))
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino == region
        assert peer.last(Request.SET_INFLIGHT_FD).payload == description
        assert Request.GET_INFLIGHT_FD not in peer.codes()
        assert struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload) == (0, 5)
        assert machine.failures == []


def test_notes_about_a_driver_that_is_gone_are_thrown_away(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        first = os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino
        peer.hang_up()
        driver.reset()
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_INFLIGHT_FD) == 2)
        assert os.fstat(peer.last(Request.SET_INFLIGHT_FD).fds[0]).st_ino != first


def test_backend_that_dies_while_it_is_greeted_is_tried_again(socket_path: Path) -> None:
    dying = []

    def die_three_times(connection: Connection, request: Received) -> None:
        if len(dying) < 3:
            dying.append(1)
            raise ConnectionError
        peer.answer_well(connection, request)

    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.answers[Request.GET_FEATURES] = die_three_times
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert len(dying) == 3
        assert machine.failures == []
        assert not driver.status & NEEDS_RESET


def test_driver_is_interrupted_when_the_next_backend_has_taken_over(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        before = driver.queue_interrupts(0)
        peer.hang_up()
        eventually(machine, lambda: driver.queue_interrupts(0) > before)


def test_next_backend_that_lacks_a_feature_in_use_fails_the_device(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.features &= ~(1 << 9)
        peer.hang_up()
        eventually(machine, lambda: bool(machine.failures))
        assert "FLUSH" in str(machine.failures[0][1])
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize(
    ("lacking", "word"), [(1 << 9, "FLUSH"), (1 << 29, "EVENT_IDX")], ids=["of the device", "of the ring"]
)
def test_backend_replaced_between_drivers_that_lacks_what_the_next_driver_accepts_fails_the_device(
    socket_path: Path, lacking: int, word: str
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        peer.features &= ~lacking
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.GET_CONFIG in peer.codes())
        driver.start()
        machine.settle()
        assert [word in str(error) for _, error in machine.failures] == [True]
        assert driver.status & NEEDS_RESET
        assert Request.SET_FEATURES not in peer.codes(), "it never heard of a driver"
        peer.features |= lacking
        driver.start()
        machine.settle()
        assert not driver.status & NEEDS_RESET


def test_backend_replaced_between_drivers_may_lack_what_the_next_driver_does_not_accept(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        peer.features &= ~(1 << 9)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.GET_CONFIG in peer.codes())
        driver.start(1 << 32)
        assert Request.SET_VRING_ENABLE in peer.codes()
        assert machine.failures == []


def test_ring_error_fails_the_device(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: bool(machine.failures))
        assert driver.status & NEEDS_RESET


def test_ring_error_is_noticed_again_after_the_reset(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        for number in (1, 2):
            driver.start()
            os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
            eventually(machine, lambda number=number: len(machine.failures) == number)  # type: ignore[misc]


def test_ring_error_without_a_free_descriptor_does_not_make_the_next_back_ends_errors_unheard(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()

        def full(*args: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(os, "eventfd", full)
            os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
            eventually(machine, lambda: len(machine.failures) == 1)
        driver.start()
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: len(machine.failures) == 2)


def test_start_that_finds_no_descriptor_for_ring_errors_is_tried_again(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)

        def full() -> int:
            raise HostError("making an eventfd: too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(user, "make_eventfd", full)
            driver.start()
            assert Request.SET_FEATURES not in peer.codes()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert machine.failures == []
        os.eventfd_write(peer.last(Request.SET_VRING_ERR).fds[0], 1)
        eventually(machine, lambda: len(machine.failures) == 1)


@pytest.mark.parametrize("call", ["socketpair", "eventfd"])
def test_reconnection_that_finds_no_free_descriptor_is_tried_again(
    socket_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """socketpair: the back-end's own channel; eventfd: what the relay's rings are made of."""
    with Peer(socket_path, protocol=NO_NOTES) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.seen.clear()
        owner, real = (socket, socket.socketpair) if call == "socketpair" else (os, os.eventfd)
        left = [3]

        def full(*args: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*args)

        monkeypatch.setattr(owner, call, full)
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert left[0] < 0
        assert machine.failures == []


def test_kick_that_the_backend_made_blocking_and_full_does_not_stop_the_guests_processor(socket_path: Path) -> None:
    with Peer(socket_path, features=1 << 32) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path}", slot=3)
        driver = machine.driver(3)
        for queue in range(2):
            machine.vm.fail("ioeventfd", errno.ENOSPC, after=queue)  # notifications come to us
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_KICK) == 2)
        with jammed(peer.last(Request.SET_VRING_KICK).fds[0]):
            assert returns(lambda: driver.registers.notify(1))
