"""The vhost-user front-end against a good back-end of our own making: what is said, and the configuration space."""

import struct
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import ProtocolFeature, Request
from tests.backends.user.machines import disk, sim
from tests.backends.user.peers.peer import ALL, Peer
from tests.backends.user.user_rig import eventually

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")

# What is said, in which order


def test_conversation_of_a_disk_in_order(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        assert [Request(code).name for code in peer.codes()] == [
            "GET_FEATURES",
            "GET_PROTOCOL_FEATURES",
            "SET_PROTOCOL_FEATURES",
            "SET_OWNER",
            "GET_QUEUE_NUM",
            "GET_MAX_MEM_SLOTS",
            "SET_BACKEND_REQ_FD",
            "GET_CONFIG",
        ]
        peer.seen.clear()
        driver.start()
        assert [Request(code).name for code in peer.codes()] == [
            "SET_FEATURES",
            "SET_STATUS",
            "GET_STATUS",
            "GET_INFLIGHT_FD",
            "SET_INFLIGHT_FD",
            "ADD_MEM_REG",
            "SET_VRING_NUM",
            "SET_VRING_BASE",
            "SET_VRING_ADDR",
            "SET_VRING_ERR",
            "SET_VRING_CALL",
            "SET_VRING_KICK",
            "SET_VRING_ENABLE",
            "SET_STATUS",
        ]
        peer.seen.clear()
        driver.reset()
        assert [Request(code).name for code in peer.codes()] == [
            "GET_VRING_BASE",
            "SET_VRING_ENABLE",
            "RESET_DEVICE",
            "SET_STATUS",
        ]


def test_memory_is_told_once_per_connection(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.reset()
        driver.start()
        assert peer.codes().count(Request.ADD_MEM_REG) == 1


def test_memory_goes_as_a_table_where_there_are_no_slots(socket_path: Path) -> None:
    protocol = ALL & ~ProtocolFeature.CONFIGURE_MEM_SLOTS
    with Peer(socket_path, protocol=protocol) as peer, sim() as machine:
        disk(machine, socket_path).start()
        table = peer.last(Request.SET_MEM_TABLE)
        assert struct.unpack_from("<I", table.payload)[0] == len(table.fds) == 1


def test_addresses_told_are_none_of_this_process(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        disk(machine, socket_path).start()
        _, _, _, told, _ = struct.unpack("<5Q", peer.last(Request.ADD_MEM_REG).payload)
        assert told != machine.memory.regions[0].hva
        _, _, desc, _, _, _ = struct.unpack("<IIQQQQ", peer.last(Request.SET_VRING_ADDR).payload)
        assert told <= desc < told + machine.memory.regions[0].size


def test_backend_without_protocol_features_serves_a_network_card(socket_path: Path) -> None:
    with Peer(socket_path, features=1 << 32 | 1 << 15) as peer, sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path}", slot=3)
        driver = machine.driver(3)
        driver.start()
        eventually(machine, lambda: peer.codes().count(Request.SET_VRING_KICK) == 2)
        assert Request.SET_VRING_ENABLE not in peer.codes()
        assert machine.failures == []


def test_network_card_offers_what_both_sides_have_and_its_own_address(socket_path: Path) -> None:
    mrg_rxbuf, mac, csum = 1 << 15, 1 << 5, 1 << 0
    with Peer(socket_path, features=1 << 32 | mrg_rxbuf), sim() as machine:
        machine.add("virtio-net", f"vhost-user={socket_path},mac=00:16:3e:00:00:01", slot=3)
        driver = machine.driver(3)
        offered = driver.registers.offered()
        assert offered & mrg_rxbuf
        assert offered & mac
        assert not offered & csum
        assert driver.registers.read_config(5, 1) == 1


# Configuration space


def test_configuration_space_is_the_backends_with_our_number_of_queues(socket_path: Path) -> None:
    config = bytes(range(60))
    with Peer(socket_path, config=config), sim() as machine:
        driver = disk(machine, socket_path)
        assert driver.read_config(0, 34) == config[:34]
        assert driver.read_config(34, 2) == b"\x01\x00"
        assert driver.read_config(36, 24) == config[36:]


def test_changed_configuration_interrupts_the_driver(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        peer.config = b"\x07" + bytes(59)
        assert peer.back is not None
        peer.back.send(2, b"", flags=1)
        eventually(machine, lambda: driver.config_interrupts == 1)
        assert driver.registers.read_config(0, 1) == 7


def test_write_to_the_cache_mode_goes_out_and_any_other_does_not(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.registers.write_config(0, 4, 99)
        assert Request.SET_CONFIG not in peer.codes()
        driver.registers.write_config(32, 1, 1)
        assert peer.last(Request.SET_CONFIG).payload == struct.pack("<III", 32, 1, 0) + b"\x01"


def test_next_backend_is_told_the_cache_mode_again(socket_path: Path) -> None:
    with Peer(socket_path) as peer, sim() as machine:
        driver = disk(machine, socket_path)
        driver.start()
        driver.registers.write_config(32, 1, 1)
        peer.seen.clear()
        peer.hang_up()
        eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())
        assert peer.last(Request.SET_CONFIG).payload[-1] == 1
