"""Options of ``vhost-user-device``: what they mean, and what is refused in which words."""

from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.options import parse_options
from acrn_dm.devices.vhost_user.config import ForeignConfig
from acrn_dm.testing import SimMachine
from acrn_dm.virtio.pci.transport import VirtioPci

GIVEN = "id=26,queues=2,socket=/s"


def read(text: str) -> ForeignConfig:
    return parse_options(ForeignConfig, text, "vhost-user-device")


def test_what_is_left_out_is_what_most_back_ends_have() -> None:
    config = read(GIVEN)
    assert (config.config, config.queue_size, config.socket) == (0, 64, Path("/s"))


@pytest.mark.parametrize(
    ("options", "code"),
    [("id=26", 0x018000), ("id=4", 0x00FF00), ("id=63", 0xFF0000), ("id=26,pci_class=0x020000", 0x020000)],
)
def test_pci_class_is_that_of_the_kind_unless_another_is_asked_for(options: str, code: int) -> None:
    assert read(f"{options},queues=1,socket=/s").class_code == code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queues=2,socket=/s", "option 'id' is required"),
        ("id=26,socket=/s", "option 'queues' is required"),
        ("id=26,queues=2", "option 'socket' is required"),
        ("id=0,queues=2,socket=/s", "id=0: expected the number of a virtio device, 1 to 63"),
        ("id=64,queues=2,socket=/s", "id=64: expected the number of a virtio device, 1 to 63"),
        ("id=1,queues=2,socket=/s", "virtio-net,vhost-user=SOCKET"),
        ("id=5,queues=2,socket=/s", "id=5: it gives back memory"),
        ("id=27,queues=1,socket=/s", "id=27: vhost-user has no way to add memory"),
        ("id=26,queues=0,socket=/s", "queues=0: expected 1 to 256"),
        ("id=26,queues=257,socket=/s", "queues=257: expected 1 to 256"),
        (f"{GIVEN},config=-1", "config=-1: expected 0 to 256 bytes"),
        (f"{GIVEN},config=257", "config=257: expected 0 to 256 bytes"),
        (f"{GIVEN},queue_size=0", "queue_size=0: expected a power of two up to 32768"),
        (f"{GIVEN},queue_size=96", "queue_size=96: expected a power of two up to 32768"),
        (f"{GIVEN},queue_size=65536", "queue_size=65536: expected a power of two up to 32768"),
        (f"{GIVEN},pci_class=0x1000000", "pci_class=0x1000000: expected 24 bits"),
        (f"id=26,queues=2,socket=/{'x' * 107}", "a socket's path has at most 107 bytes"),
        (f"{GIVEN},vhost_user=/t", "unknown option 'vhost_user'; did you mean 'socket'"),
        (f"{GIVEN},num_vqs=2", "did you mean 'queues'"),
    ],
)
def test_what_can_not_be_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        read(text)


def test_function_is_a_modern_device_of_that_kind() -> None:
    with SimMachine() as machine:
        function = machine.add("vhost-user-device", f"{GIVEN},config=60,queue_size=256", slot=6)
        assert isinstance(function, VirtioPci)
        assert function.config_read(0, 4) == 0x105A1AF4
        assert function.config_read(8, 4) == 0x01800001
        assert list(function.device.queue_sizes) == [256, 256]
        assert 0 not in function.bars  # no legacy registers


def test_two_of_them_can_not_have_one_socket() -> None:
    with SimMachine() as machine:
        one = machine.add("vhost-user-device", GIVEN, slot=6)
        assert [claim.what for claim in one.device.claims()] == ["socket /s"]  # type: ignore[attr-defined]


def test_its_data_is_moved_by_nobody_else() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="/s is the socket of the backend vhost-user"):
        machine.add("vhost-user-device", f"{GIVEN},backend=vbs-u", slot=6)


def test_it_has_no_process_of_its_own_besides() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="its data is moved elsewhere already"):
        machine.add("vhost-user-device", f"{GIVEN},process=on", slot=6)
