"""``vhost-user-device`` before back-ends of our own making, good and bad: what is asked of them, and what follows."""

import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.base.errors import HostError
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from acrn_dm.virtio.features import IN_ORDER, OFFERED_BY_PCI, PACKED
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.machines import impatient
from tests.backends.user.peers.peer import ALL, NO_NOTES, Connection, Peer, Received
from tests.backends.user.user_rig import eventually

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")

FEATURES = VERSION_1 | EVENT_IDX | INDIRECT_DESC | PROTOCOL_FEATURES
FS, RNG = "id=26,queues=2", "id=4,queues=1"
CONFIG = bytes(range(1, 61))


@contextmanager
def device(peer: Peer, options: str) -> Iterator[tuple[SimMachine, VirtioDriver]]:
    """A machine with the device that *peer* is."""
    with peer, SimMachine() as machine:
        machine.add("vhost-user-device", f"{options},socket={peer.path}", slot=3)
        yield machine, machine.driver(3)


def refusal(peer: Peer, options: str) -> str:
    """Why a machine with the device that *peer* is does not start."""
    with peer:
        machine = SimMachine()
        machine.add("vhost-user-device", f"{options},socket={peer.path}", slot=3)
        with pytest.raises(HostError) as caught:
            machine.driver(3)
        machine.close()
    return str(caught.value)


def said(peer: Peer) -> list[str]:
    return [Request(code).name for code in peer.codes()]


# What it is asked and told


def test_conversation_without_a_configuration_space_asks_for_none(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES, protocol=ALL & ~ProtocolFeature.CONFIG)
    with device(peer, FS) as (machine, driver):
        driver.start()
        assert "GET_CONFIG" not in said(peer)
        assert peer.codes().count(Request.SET_VRING_ENABLE) == 2
        assert machine.failures == []


def test_bits_of_the_kind_are_the_backends_and_of_the_rings_what_both_have(socket_path: Path) -> None:
    ours = VERSION_1 | EVENT_IDX | INDIRECT_DESC | PACKED
    peer = Peer(socket_path, features=(1 << 64) - 1 & ~INDIRECT_DESC)
    with device(peer, FS) as (_, driver):
        offered = driver.registers.offered()
    kind = (1 << 24) - 1 | (1 << 64) - (1 << 50)
    assert offered == kind | (ours & ~INDIRECT_DESC) | OFFERED_BY_PCI


def test_in_order_is_offered_where_it_is_asked_for_and_the_backend_has_it(socket_path: Path) -> None:
    with device(Peer(socket_path, features=FEATURES | IN_ORDER), f"{FS},in_order=on") as (_, driver):
        assert driver.registers.offered() & IN_ORDER
    with device(Peer(socket_path, features=FEATURES), f"{FS},in_order=on") as (_, driver):
        assert not driver.registers.offered() & IN_ORDER


def test_backend_is_told_the_bits_of_its_kind_and_none_that_end_at_the_registers(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES | 1 << 3 | 1 << 60)
    with device(peer, FS) as (_, driver):
        driver.start()
        told = int.from_bytes(peer.last(Request.SET_FEATURES).payload, "little")
    assert told & (1 << 3 | 1 << 60) == 1 << 3 | 1 << 60
    assert told & OFFERED_BY_PCI == 0


def test_configuration_space_is_the_backends(socket_path: Path) -> None:
    with device(Peer(socket_path, features=FEATURES, config=CONFIG), f"{FS},config=60") as (_, driver):
        assert driver.read_config(0, 60) == CONFIG


def test_changed_configuration_is_fetched_and_the_driver_told(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES, config=CONFIG)
    with device(peer, f"{FS},config=60") as (machine, driver):
        driver.start()
        peer.config = bytes(60)
        assert peer.back is not None
        peer.back.send(2, b"", flags=1)
        eventually(machine, lambda: driver.config_interrupts == 1)
        assert driver.read_config(0, 60) == bytes(60)


def test_news_of_a_configuration_space_that_there_is_none_of_is_no_news(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        assert peer.back is not None
        back = peer.back
        back.send(2, b"", flags=1 | 8)
        eventually(machine, lambda: bool(select.select([back.socket], [], [], 0)[0]))
        answer = back.receive()
        assert answer is not None
        assert answer.payload == bytes(8)
        eventually(machine, lambda: backend(machine)._config_timer is None)
        driver.start()
        assert "GET_CONFIG" not in said(peer)


def test_write_of_the_driver_goes_out_and_is_read_back(socket_path: Path) -> None:
    """A back-end may take it in another way than it was meant."""
    peer = Peer(socket_path, features=FEATURES, config=bytes(60))

    def take(connection: Connection, request: Received) -> None:
        offset, size, _ = struct.unpack_from("<III", request.payload)
        peer.config = bytes(offset) + bytes(b ^ 0xFF for b in request.payload[12:]) + bytes(60 - offset - size)
        peer.answer_well(connection, request)

    peer.answers[Request.SET_CONFIG] = take
    with device(peer, f"{FS},config=60") as (_, driver):
        driver.start()
        driver.registers.write_config(36, 4, 0x01020304)
        assert driver.read_config(36, 4) == bytes([0xFB, 0xFC, 0xFD, 0xFE])


# What is refused


def test_backend_without_configuration_where_one_is_asked_for_is_refused(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES, protocol=ALL & ~ProtocolFeature.CONFIG)
    assert refusal(peer, f"{FS},config=60").endswith("it lacks protocol features that this device needs: CONFIG")


@pytest.mark.parametrize("size", [0, 59, 61, 256])
def test_configuration_of_another_size_is_refused(socket_path: Path, size: int) -> None:
    said = refusal(Peer(socket_path, features=FEATURES, config=bytes(size)), f"{FS},config=60")
    assert f"GET_CONFIG of 60 bytes was answered with {12 + size}" in said


def test_configuration_that_does_not_come_is_refused_in_time(socket_path: Path) -> None:
    peer = Peer(socket_path, {Request.GET_CONFIG: lambda connection, request: None}, features=FEATURES)
    with impatient():
        assert "GET_CONFIG was not answered within" in refusal(peer, f"{FS},config=60")


@pytest.mark.parametrize(("served", "words"), [(0, "0 queues"), (1, "1 queue")])
def test_backend_that_serves_fewer_queues_than_asked_for_is_refused(socket_path: Path, served: int, words: str) -> None:
    def count(connection: Connection, request: Received) -> None:
        connection.send(request.code, struct.pack("<Q", served))

    peer = Peer(socket_path, {Request.GET_QUEUE_NUM: count}, features=FEATURES)
    assert refusal(peer, FS).endswith(f"it serves {words}, the device has 2")


def test_backend_of_another_age_is_refused(socket_path: Path) -> None:
    assert "VIRTIO_F_VERSION_1" in refusal(Peer(socket_path, features=FEATURES & ~VERSION_1), FS)


def test_kind_that_can_not_be_without_a_feature_is_refused_without_it(socket_path: Path) -> None:
    """5.16.6.4: the driver of an I2C adapter has to accept ZERO_LENGTH_REQUEST."""
    assert refusal(Peer(socket_path, features=FEATURES), "id=34,queues=1").endswith("ZERO_LENGTH_REQUEST")


# What follows the end of the process


def test_driver_of_a_kind_that_is_not_known_is_asked_for_a_reset_at_once(socket_path: Path) -> None:
    """What the process had in flight may not be repeated, and what it knew of its driver is gone."""
    peer = Peer(socket_path, features=FEATURES, protocol=NO_NOTES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        peer.hang_up()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
        assert "the connection was closed" in str(machine.failures[0][1])


def test_rings_are_the_drivers_own_though_nobody_takes_notes(socket_path: Path) -> None:
    """A relay would be of no use: what it had in flight could not be done again."""
    peer = Peer(socket_path, features=FEATURES, protocol=NO_NOTES)
    with device(peer, FS) as (_, driver):
        driver.start()
        assert peer.codes().count(Request.ADD_MEM_REG) == 1


def test_next_process_is_kept_for_what_follows_the_reset_and_gets_no_ring_before(socket_path: Path) -> None:
    """Some serve one connection and end with it."""
    peer = Peer(socket_path, features=FEATURES, protocol=NO_NOTES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: "GET_MAX_MEM_SLOTS" in said(peer))
        machine.settle()
        assert not {"SET_VRING_KICK", "SET_FEATURES"} & set(said(peer))
        driver.start()
        assert "SET_VRING_KICK" in said(peer)
        assert peer.connections == 2
        assert not driver.status & NEEDS_RESET


def test_driver_that_resets_before_there_is_another_process_waits_for_it(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES, protocol=NO_NOTES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        away = socket_path.rename(socket_path.with_suffix(".away"))
        peer.hang_up()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
        peer.seen.clear()
        driver.start()
        assert peer.seen == []
        away.rename(socket_path)
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_ENABLE) == 2)
        assert not driver.status & NEEDS_RESET


def test_process_that_takes_notes_goes_on(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        driver.queue(1).send([bytes(16)], [1])
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: "SET_VRING_ENABLE" in said(peer))
        assert "SET_INFLIGHT_FD" in said(peer)
        assert "GET_INFLIGHT_FD" not in said(peer)
        assert machine.failures == []


def test_process_without_notes_does_not_go_on_with_what_another_noted(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        peer.protocol = NO_NOTES
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: bool(machine.failures))
        assert "without INFLIGHT_SHMFD nobody knows" in str(machine.failures[0][1])
        assert "SET_VRING_KICK" not in said(peer)


def test_entropy_goes_on_from_what_was_returned_last(socket_path: Path) -> None:
    """What is done twice is as good as once."""
    peer = Peer(socket_path, features=FEATURES, protocol=NO_NOTES)
    with device(peer, RNG) as (machine, driver):
        driver.start()
        queue = driver.queue(0)
        queue.send(in_=[16])
        machine.memory.write(queue.ring.layout.used + 2, (5).to_bytes(2, "little"))
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: "SET_VRING_ENABLE" in said(peer))
        assert struct.unpack("<II", peer.last(Request.SET_VRING_BASE).payload) == (0, 5)
        assert machine.failures == []


# Pauses and resets


def test_reset_makes_the_process_forget_its_driver_and_a_pause_does_not(socket_path: Path) -> None:
    peer = Peer(socket_path, features=FEATURES)
    with device(peer, FS) as (_, driver):
        driver.start()
        peer.seen.clear()
        driver.reset_queue(1)  # alone: all are stopped, and the others go on
        assert "GET_VRING_BASE" in said(peer)
        assert "RESET_DEVICE" not in said(peer)
        driver.reset()
        assert said(peer)[-1] == "RESET_DEVICE"


def test_driver_that_is_paused_while_the_process_is_gone_is_asked_for_a_reset(socket_path: Path) -> None:
    """Also where the rings are idle: the next process does not know of it."""
    peer = Peer(socket_path, features=FEATURES)
    with device(peer, FS) as (machine, driver):
        driver.start()
        queue = driver.queue(0)
        queue.send([bytes(16)])
        machine.memory.write(queue.ring.layout.used + 2, (1).to_bytes(2, "little"))
        away = socket_path.rename(socket_path.with_suffix(".away"))
        peer.hang_up()
        eventually(machine, lambda: not backend(machine)._link.connected)
        driver.reset_queue(1)
        away.rename(socket_path)
        assert driver.status & NEEDS_RESET


def backend(machine: SimMachine) -> VhostUser:
    function = machine.bus.functions[0]
    assert isinstance(function, VirtioPci)
    found = function.data_plane.backend
    assert isinstance(found, VhostUser)
    return found
