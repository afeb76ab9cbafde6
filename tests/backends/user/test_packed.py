"""Packed rings that a back-end serves: where they are offered, where they begin, and what comes of them at its end."""

import os
import struct
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET, PACKED
from tests.backends.user.machines import sim
from tests.backends.user.peers.peer import BLK_FEATURES, NO_NOTES, Connection, Peer, Received
from tests.backends.user.user_rig import eventually
from tests.virtio.pause import pause, resume

SLOT = 3
START = 0x8000_8000
NET_FEATURES = 1 << 32 | PACKED | PROTOCOL_FEATURES


def peer_with_packed(path: Path, **options: int) -> Peer:
    return Peer(path, features=BLK_FEATURES | PACKED, **options)  # type: ignore[arg-type]


def drive(machine: SimMachine, peer: Peer, options: str = "") -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={peer.path}{options}", slot=SLOT)
    driver = machine.driver(SLOT)
    driver.start(driver.registers.offered())
    machine.settle()
    return driver


def base_said(peer: Peer) -> tuple[int, int]:
    index, base = struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload)
    return index, base


@pytest.mark.parametrize(
    ("options", "peers", "there"), [("", PACKED, True), (",packed=off", PACKED, False), (",packed=on", 0, False)]
)
def test_packed_rings_are_offered_where_the_backend_has_them_unless_the_user_says_no(
    tmp_path: Path, options: str, peers: int, there: bool
) -> None:
    with Peer(tmp_path / "s", features=BLK_FEATURES | peers) as peer, sim() as machine:
        driver = drive(machine, peer, options)
        assert bool(driver.registers.offered() & PACKED) is there
        told = int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little")
        assert bool(told & PACKED) is there
        assert base_said(peer) == (0, START if there else 0)


def test_ring_begins_with_wrap_counters_and_notes(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        assert not driver.status & NEEDS_RESET
        assert base_said(peer) == (0, START)
        assert Request.SET_INFLIGHT_FD in peer.codes()


@pytest.mark.parametrize(("said", "told"), [(0x0003_0003, 0x0003_0003), (0x8007, 0x8007_8007)])
def test_row_35_position_with_wrap_counters_survives_a_pause(tmp_path: Path, said: int, told: int) -> None:
    """Row 35 of vmm-anchors 3b, and back-ends that say the lower half only."""

    def answer(connection: Connection, request: Received) -> None:
        connection.send(request.code, request.payload[:4] + struct.pack("<I", said))

    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        peer.answers[Request.GET_VRING_BASE] = answer
        pause(machine.bus.functions[0])
        resume(machine.bus.functions[0])
        machine.settle()
        assert base_said(peer) == (0, told)
        assert not driver.status & NEEDS_RESET


def test_next_backend_gets_the_notes_of_the_last_one_by_which_it_knows_where_it_was(tmp_path: Path) -> None:
    """INFLIGHT_SHMFD: of a packed ring the notes have the used position as well, for nobody else knows it."""
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        first = peer.last(Request.SET_INFLIGHT_FD)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        again = peer.last(Request.SET_INFLIGHT_FD)
        assert again.payload == first.payload
        assert os.fstat(again.fds[0]).st_ino == os.fstat(first.fds[0]).st_ino
        assert Request.GET_INFLIGHT_FD not in peer.codes()
        assert not driver.status & NEEDS_RESET


def test_next_backend_without_notes_can_not_know_where_the_last_one_was(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        peer.protocol = NO_NOTES
        peer.hang_up()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
        driver.reset()
        driver.start(driver.registers.offered())
        machine.settle()
        assert not driver.status & NEEDS_RESET
        assert base_said(peer) == (0, START)


@pytest.mark.parametrize(("options", "there"), [("", False), (",packed=on", True)])
def test_card_has_them_where_the_user_asks_and_its_driver_is_asked_for_a_reset_at_the_end(
    tmp_path: Path, options: str, there: bool
) -> None:
    """Frames pass through no relay, and nobody takes notes of them."""
    with Peer(tmp_path / "s", features=NET_FEATURES) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={peer.path}{options}", slot=SLOT)
        driver = machine.driver(SLOT)
        assert bool(driver.registers.offered() & PACKED) is there
        driver.start(driver.registers.offered())
        machine.settle()
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET) or Request.SET_VRING_ENABLE in peer.codes())
        assert bool(driver.status & NEEDS_RESET) is there


def test_pause_without_the_backend_that_had_the_ring_asks_for_a_reset(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        peer.hang_up()
        machine.settle()
        pause(machine.bus.functions[0])
        resume(machine.bus.functions[0])
        machine.settle()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
