"""The conformance suite on each built-in device; without root, without a guest. Leaves build/conformance.json."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices import virtio_console
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import HOSTILE, SLOT, Build, conform, write_json
from acrn_dm.testing.conformance.outside.image import ImageMedium
from acrn_dm.testing.conformance.outside.sockets import SocketTerminals
from acrn_dm.testing.conformance.outside.tap import TapNetwork
from acrn_dm.testing.conformance.setup import FORMATS, SPLIT
from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_net.net_rig import looped_tap

WORLDS: dict[str, Callable[[], Any]] = {  # devices with what stands behind them
    "blk image": lambda: ImageMedium("writeback,discard=64:4:1"),
    "blk image read-only with discard": lambda: ImageMedium("ro,discard"),
    "blk nodisk": lambda: ImageMedium(empty=True),
    "blk O_DIRECT": lambda: ImageMedium("nocache"),
    "console sockets": lambda: SocketTerminals(ports=2),
    "net": TapNetwork,
    "net without packet headers": lambda: TapNetwork(headers=False),
    "net with several pairs": lambda: TapNetwork("tap=t0,mq=2,mtu=1500,speed=1000,duplex=full"),
}
# Each kind is seen with both ring formats, its other devices with split rings alone: what they are about are no rings.
IN_BOTH_FORMATS = ("blk image", "console sockets", "net", "net with several pairs")
ALONE = ("console file", "console pty", "console server and client")
FAST = next(iter(WORLDS))
REPORT = Path(__file__).resolve().parents[2] / "build" / "conformance.json"
CONTROL = {"net with several pairs": (4,), "console pty": (2, 3)}  # numbers of the queues that carry commands
HARMLESS = {"length 0 only", "one byte each way", "nothing but one byte"}  # rings that are in order


def build(name: str, directory: Path) -> Build:
    """What puts the device called *name* into its slot; it has nobody on its other side."""
    count = itertools.count()
    console = virtio_console.acrn_dm_device_types()[0]
    texts = {  # two machines can't listen at one path, nor write one file
        "console server and client": f"@socket:a={directory}/s{{}}:server,socket:b={directory}/none:client",
        "console file": f"@file:a={directory}/log{{}}",
        "console pty": "@pty:a,pty:b",
    }

    def net(context: DeviceContext) -> NetDevice:
        return NetDevice(NetConfig.from_string("tap=t0,mq=2"), context, lambda _: looped_tap(True))

    if name in texts:
        return lambda machine: machine.add(console, texts[name].format(next(count)), slot=SLOT)
    return lambda machine: machine.add(net, slot=SLOT)


@pytest.mark.parametrize("name", [FAST, *(pytest.param(name, marks=pytest.mark.stress) for name in [*WORLDS][1:])])
def test_built_in_device_conforms_with_what_stands_behind_it(name: str, request: pytest.FixtureRequest) -> None:
    world = WORLDS[name]()
    if hasattr(world, "close"):
        request.addfinalizer(world.close)
    formats = FORMATS if name in IN_BOTH_FORMATS else (SPLIT,)
    report = conform(world.build, name=name, outside=world, formats=formats)
    write_json(REPORT, [report])
    assert report.failed == [], report.text()


@pytest.mark.stress
@pytest.mark.parametrize("name", ALONE)
def test_built_in_device_conforms(name: str, tmp_path: Path) -> None:
    report = conform(build(name, tmp_path), name=name, formats=(SPLIT,))
    write_json(REPORT, [report])
    assert report.failed == [], report.text()


@pytest.mark.parametrize("ring", HOSTILE)
@pytest.mark.parametrize("name", CONTROL)
def test_row_04_malformed_ring_of_a_control_queue_costs_a_reset_and_no_more(
    name: str, ring: str, tmp_path: Path
) -> None:
    """DPDK 6ec1778134: the control queue's walk had no bounds, years after the data path got them."""
    with SimMachine() as machine:
        build(name, tmp_path)(machine)
        driver = machine.driver(SLOT)
        for queue in CONTROL[name]:
            driver.start()
            HOSTILE[ring](driver.queue(queue))
            driver.registers.notify(queue)
            machine.settle()
            if ring not in HARMLESS and queue != 2:  # the console takes buffers for its messages when it has one
                assert driver.status & NEEDS_RESET
            driver.start()
            assert not driver.status & NEEDS_RESET
