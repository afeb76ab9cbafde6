"""The option grammar of virtio-net, and addresses."""

import hashlib

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.options import from_mapping
from acrn_dm.contract.types import Bdf
from acrn_dm.devices.virtio_net.config import NetConfig


def test_seed_behind_vhost_is_read() -> None:
    assert NetConfig.from_string("tap=t0,vhost,mac_seed=S") == NetConfig(tap="t0", vhost=True, mac_seed="S")


def test_tap_may_stand_anywhere() -> None:
    expected = NetConfig(tap="t0", mac="02:00:00:00:00:0a")
    assert NetConfig.from_string("mac=02:00:00:00:00:0A,tap=t0") == expected


def test_toml_table_gives_the_same_as_text() -> None:
    assert from_mapping(NetConfig, {"tap": "t0", "vhost": True}, "virtio-net") == NetConfig.from_string("tap=t0,vhost")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "tap"),
        ("t0", "tap=NAME"),
        ("tap", "tap=NAME"),
        ("tap=", "tap"),
        ("tap=a/b", "a/b"),
        ("tap=sixteencharacter", "15"),
        ("tap=t0,tap=t1", "twice"),
        ("tap=t0,mac=0:0:0:0:0:1", "XX:XX"),
        ("tap=t0,mac=00:00:00:00:00:00", "zero"),
        ("tap=t0,mac=01:00:00:00:00:00", "multicast"),
        ("tap=t0,mac=02:00:00:00:00:01,mac_seed=x", "exclude"),
        ("tap=t0,bogus=1", "bogus"),
    ],
)
def test_wrong_option_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NetConfig.from_string(text)


@pytest.mark.parametrize(("seed", "hashed"), [(None, b"3-1"), ("vm1", b"3-1-vm1")])
def test_generated_address_is_that_of_the_original(seed: str | None, hashed: bytes) -> None:
    address = NetConfig(tap="t0", mac_seed=seed).address(Bdf(slot=3, func=1))
    assert address == b"\x00\x16\x3e" + hashlib.md5(hashed).digest()[:3]
