"""Packed rings that a back-end serves: only where the user asks for them, and until it goes."""

import struct
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import Request
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET, PACKED
from tests.backends.user.machines import sim
from tests.backends.user.peers.peer import BLK_FEATURES, Connection, Peer, Received
from tests.backends.user.user_rig import eventually
from tests.virtio.pause import pause, resume

SLOT = 3
START = 0x8000_8000


def peer_with_packed(path: Path, **options: int) -> Peer:
    return Peer(path, features=BLK_FEATURES | PACKED, **options)  # type: ignore[arg-type]


def drive(machine: SimMachine, peer: Peer, options: str = ",packed=on") -> VirtioDriver:
    machine.add("virtio-blk", f"vhost-user={peer.path}{options}", slot=SLOT)
    driver = machine.driver(SLOT)
    driver.start(driver.registers.offered())
    machine.settle()
    return driver


def base_said(peer: Peer) -> tuple[int, int]:
    index, base = struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload)
    return index, base


@pytest.mark.parametrize(
    ("options", "peers", "there"), [("", PACKED, False), (",packed=on", PACKED, True), (",packed=on", 0, False)]
)
def test_packed_rings_are_offered_where_user_and_backend_want_them(
    tmp_path: Path, options: str, peers: int, there: bool
) -> None:
    with Peer(tmp_path / "s", features=BLK_FEATURES | peers) as peer, sim() as machine:
        driver = drive(machine, peer, options)
        assert bool(driver.registers.offered() & PACKED) is there
        told = int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little")
        assert bool(told & PACKED) is there
        assert base_said(peer) == (0, START if there else 0)


def test_ring_begins_with_wrap_counters_and_without_notes_that_nobody_could_use(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        assert not driver.status & NEEDS_RESET
        assert base_said(peer) == (0, START)
        assert Request.SET_INFLIGHT_FD not in peer.codes()


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


def test_end_of_a_backend_asks_for_a_reset_since_the_ring_does_not_say_where_it_was(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        peer.hang_up()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
        driver.reset()
        driver.start(driver.registers.offered())
        machine.settle()
        assert not driver.status & NEEDS_RESET
        assert base_said(peer) == (0, START)


def test_pause_without_the_backend_that_had_the_ring_asks_for_a_reset(tmp_path: Path) -> None:
    with peer_with_packed(tmp_path / "s") as peer, sim() as machine:
        driver = drive(machine, peer)
        peer.hang_up()
        machine.settle()
        pause(machine.bus.functions[0])
        resume(machine.bus.functions[0])
        machine.settle()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
