"""``virtio-fs``: its options, what a driver finds, and what virtiofsd is asked."""

import struct
from pathlib import Path

import pytest

from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.contract.options import parse_options
from acrn_dm.devices.virtio_fs.config import FsConfig
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import EVENT_IDX, VERSION_1
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.peers.peer import Connection, Peer, Received

FEATURES = VERSION_1 | EVENT_IDX | PROTOCOL_FEATURES
LIKE_VIRTIOFSD = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIGURE_MEM_SLOTS


def fs(machine: SimMachine, options: str) -> VirtioDriver:
    machine.add("virtio-fs", options, slot=7)
    return machine.driver(7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socket=/s", "option 'tag' is required"),
        ("tag=t", "option 'socket' is required"),
        ("socket=/s,tag=", "a value is missing"),
        (f"socket=/s,tag={'ä' * 19}", "expected 1 to 36 bytes"),
        ("socket=/s,tag=a\0b", "expected 1 to 36 bytes"),
        ("socket=/s,tag=t,queues=0", "queues=0: expected 1 to 255 request queues"),
        ("socket=/s,tag=t,queues=256", "queues=256: expected 1 to 255 request queues"),
        ("socket=/s,tag=t,queue_size=100", "queue_size=100: expected a power of two up to 32768"),
        ("socket=/s,tag=t,mount_tag=u", "did you mean 'tag'"),
    ],
)
def test_what_can_not_be_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_options(FsConfig, text, "virtio-fs")


@pytest.mark.parametrize("tag", ["t", "ä" * 18])
def test_driver_finds_tag_and_queues_though_the_process_has_no_configuration(tmp_path: Path, tag: str) -> None:
    with Peer(tmp_path / "s", features=FEATURES, protocol=LIKE_VIRTIOFSD) as peer, SimMachine() as machine:
        driver = fs(machine, f"socket={tmp_path / 's'},tag={tag},queues=3")
        assert driver.read_config(0, 40) == tag.encode().ljust(36, b"\0") + struct.pack("<I", 3)
        driver.registers.write_config(36, 4, 7)
        assert driver.read_config(36, 4) == struct.pack("<I", 3)
        driver.start()
        assert [r.payload[0] for r in peer.seen if r.code == Request.SET_VRING_KICK] == [0, 1, 2, 3]
        assert not {Request.GET_CONFIG, Request.SET_CONFIG, Request.SET_BACKEND_REQ_FD} & set(peer.codes())
        assert machine.failures == []


def test_queue_for_notifications_is_not_offered_as_there_is_none(tmp_path: Path) -> None:
    with Peer(tmp_path / "s", features=FEATURES | 0b11), SimMachine() as machine:
        driver = fs(machine, f"socket={tmp_path / 's'},tag=t")
        assert driver.registers.offered() & 0b11 == 0b10


def test_function_is_a_file_system() -> None:
    with SimMachine() as machine:
        function = machine.add("virtio-fs", "socket=/s,tag=t", slot=7)
        assert isinstance(function, VirtioPci)
        assert function.config_read(0, 4) == 0x105A1AF4
        assert function.config_read(8, 4) == 0x01800001
        assert list(function.device.queue_sizes) == [128, 128]


def test_several_request_queues_need_a_process_that_says_how_many_it_serves(tmp_path: Path) -> None:
    with Peer(tmp_path / "s", features=FEATURES, protocol=ProtocolFeature.REPLY_ACK):
        with SimMachine() as machine:
            fs(machine, f"socket={tmp_path / 's'},tag=t").start()
        machine = SimMachine()
        with pytest.raises(HostError, match="it serves one queue, having no protocol feature MQ; the device has 3"):
            fs(machine, f"socket={tmp_path / 's'},tag=t,queues=2")
        machine.close()


def test_more_queues_than_the_process_serves_are_refused(tmp_path: Path) -> None:
    def two(connection: Connection, request: Received) -> None:
        connection.send(request.code, struct.pack("<Q", 2))

    with Peer(tmp_path / "s", {Request.GET_QUEUE_NUM: two}, features=FEATURES, protocol=LIKE_VIRTIOFSD):
        machine = SimMachine()
        with pytest.raises(HostError, match="it serves 2 queues, the device has 3"):
            fs(machine, f"socket={tmp_path / 's'},tag=t,queues=2")
        machine.close()
