"""The conformance checks that any virtio device has to pass, on each built-in one; without root, without a guest."""

import itertools
from pathlib import Path

import pytest

from acrn_dm.devices import virtio_blk, virtio_console
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import CHECKS
from acrn_dm.testing.conformance import SLOT, Build, Check
from acrn_dm.types import DeviceContext
from tests.devices.net_rig import looped_tap

BUILDS = (
    "blk image",
    "blk image read-only with discard",
    "blk nodisk",
    "blk O_DIRECT",
    "console file",
    "console pty",
    "console server and client",
    "net",
    "net without packet headers",
)


def build(name: str, directory: Path) -> Build:
    """What puts the device called *name* into its slot."""
    image = directory / "disk.img"
    image.write_bytes(bytes(1 << 20))
    count = itertools.count()
    blk, console = virtio_blk.acrn_dm_device_types()[0], virtio_console.acrn_dm_device_types()[0]
    texts = {
        "blk image": (blk, f"{image},writeback,discard=64:4:1,share=on"),
        "blk image read-only with discard": (blk, f"{image},ro,discard"),
        "blk nodisk": (blk, "nodisk"),
        "blk O_DIRECT": (blk, f"{image},nocache,share=on"),
        "console file": (console, f"@file:a={directory / 'log'}"),
        "console pty": (console, "@pty:a,pty:b"),
    }
    if name == "console server and client":  # a server's path is its own: two machines can't listen at one
        text = f"@socket:a={directory}/s{{}}:server,socket:b={directory}/none:client"
        return lambda machine: machine.add(console, text.format(next(count)), slot=SLOT)
    if name in texts:
        kind, text = texts[name]
        return lambda machine: machine.add(kind, text, slot=SLOT)

    def net(context: DeviceContext) -> NetDevice:
        return NetDevice(NetConfig.from_string("tap=t0"), context, lambda _: looped_tap(name == "net"))

    return lambda machine: machine.add(net, slot=SLOT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", BUILDS)
def test_built_in_device_conforms(name: str, check: Check, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(build(name, tmp_path))
