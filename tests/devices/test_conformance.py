"""The conformance suite on each built-in device; without root, without a guest. Leaves build/conformance.json."""

import itertools
from pathlib import Path

import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices import virtio_blk, virtio_console
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import HOSTILE, SLOT, Build, conform, write_json
from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_net.net_rig import looped_tap

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
    "net with several pairs",
)
FAST = BUILDS[0]
REPORT = Path(__file__).resolve().parents[2] / "build" / "conformance.json"
CONTROL = {"net with several pairs": (4,), "console pty": (2, 3)}  # numbers of the queues that carry commands
HARMLESS = {"length 0 only", "one byte each way", "nothing but one byte"}  # rings that are in order


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
        "console pty": (console, "@pty:a,pty:b"),
    }
    own = {  # two machines can't listen at one path, nor write one file
        "console server and client": f"@socket:a={directory}/s{{}}:server,socket:b={directory}/none:client",
        "console file": f"@file:a={directory}/log{{}}",
    }
    if name in own:
        return lambda machine: machine.add(console, own[name].format(next(count)), slot=SLOT)
    if name in texts:
        kind, text = texts[name]
        return lambda machine: machine.add(kind, text, slot=SLOT)

    def net(context: DeviceContext) -> NetDevice:
        options = "tap=t0,mq=2" if name == "net with several pairs" else "tap=t0"
        headers = name != "net without packet headers"
        return NetDevice(NetConfig.from_string(options), context, lambda _: looped_tap(headers))

    return lambda machine: machine.add(net, slot=SLOT)


@pytest.mark.parametrize("name", [FAST, *(pytest.param(name, marks=pytest.mark.stress) for name in BUILDS[1:])])
def test_built_in_device_conforms(name: str, tmp_path: Path) -> None:
    report = conform(build(name, tmp_path), name=name)
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
