"""acrn-dm-vhost-user with clients that use packed rings."""

import os
import struct
import time
from pathlib import Path

import pytest

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, Request
from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.making import make_device
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from acrn_dm.testing.driver import INDIRECT_DESC, PACKED
from acrn_dm.virtio.features import IN_ORDER
from tests.backends.user.user_rig import Daemon
from tests.export.made import made
from tests.export.vhost_user.export_rig import USER, VERSION_1, Client

SIZE = 5  # no power of two


def negotiate(client: Client) -> None:
    offered = client.ask(Request.GET_FEATURES)
    assert offered is not None
    assert int.from_bytes(offered, "little") & PACKED
    client.negotiate()
    client.must(Request.SET_FEATURES, struct.pack("<Q", VERSION_1 | PACKED | PROTOCOL_FEATURES))
    client.share_memory()


def start(client: Client, driver: PackedDriverRing, base: int) -> int:
    """Start ring 1, a console's output; returns its kick."""
    kick, call = client.eventfd(), client.eventfd()
    layout = driver.layout
    client.must(Request.SET_VRING_NUM, struct.pack("<II", 1, SIZE))
    client.must(Request.SET_VRING_BASE, struct.pack("<II", 1, base))
    addresses = payload.vring_addr(1, desc=USER + layout.desc, avail=USER + layout.avail, used=USER + layout.used)
    client.must(Request.SET_VRING_ADDR, addresses)
    client.must(Request.SET_VRING_CALL, struct.pack("<Q", 1), (call,))
    client.must(Request.SET_VRING_KICK, struct.pack("<Q", 1), (kick,))
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    return kick


def write(client: Client, driver: PackedDriverRing, kick: int, text: bytes) -> None:
    client.write(0x80000, text)
    driver.add_chain([(0x80000, 1), (0x80001, len(text) - 1)])
    driver.publish()
    os.eventfd_write(kick, 1)
    until = time.monotonic() + 10
    while not driver.used():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_ring_is_served_and_its_base_goes_on_with_wrap_counters(daemon: Daemon, client: Client) -> None:
    """Row 35 of vmm-anchors 3b: what GET_VRING_BASE says starts the next ring, in any lap."""
    negotiate(client)
    driver = PackedDriverRing(client, packed_layout(0x10000, SIZE))
    kick = start(client, driver, 0x8000_8000)
    before = (Path(daemon.log).parent / "out").read_bytes()
    for lap in range(4):
        write(client, driver, kick, b"packed %d" % lap)
        said = client.ask(Request.GET_VRING_BASE, struct.pack("<II", 1, 0))
        assert said == struct.pack("<II", 1, driver.position.base)
        kick = start(client, driver, driver.position.base)
    out = (Path(daemon.log).parent / "out").read_bytes()
    assert out.removeprefix(before) == b"packed 0packed 1packed 2packed 3"


@pytest.mark.parametrize("feature", [PACKED, IN_ORDER, INDIRECT_DESC])
def test_option_takes_the_offer_away(feature: int, tmp_path: Path) -> None:
    name = {PACKED: "packed", IN_ORDER: "in_order", INDIRECT_DESC: "indirect_desc"}[feature]
    loop = IoLoop("main")
    text = f"file:port0={tmp_path / 'out'}"
    there = [ExportedDevice(made(f"virtio-console,{text}{more}"), loop).features for more in ("", f",{name}=off")]
    loop.close()
    assert there[0] & ~there[1] == feature
    assert not there[1] & ~there[0]


@pytest.mark.parametrize(
    ("device", "offered"), [("virtio-blk,nodisk", [False, True]), ("virtio-console,file:port0=/nowhere", [True, True])]
)
def test_order_is_offered_where_it_costs_nothing_or_is_asked_for(device: str, offered: list[bool]) -> None:
    loop = IoLoop("main")
    there = [ExportedDevice(made(f"{device}{more}"), loop).features for more in ("", ",in_order=on")]
    loop.close()
    assert [bool(features & IN_ORDER) for features in there] == offered


def test_order_that_can_not_be_kept_is_refused() -> None:
    lines = make_device("virtio-gpio,count=1,in_order=on", make_plugin_manager(), program="test").device
    loop = IoLoop("main")
    with pytest.raises(ConfigError, match="can't wait for one another"):
        ExportedDevice(lines, loop)
    loop.close()
