"""The base class of devices stays small, and what a device says of its placement is heard."""

import inspect
from pathlib import Path

import pytest

from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.virtio import optional
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.placement import Placement

pytestmark = pytest.mark.both_formats

CONTEXT = DeviceContext(bdf=Bdf(slot=3), kind="thing")
PROTOCOLS = [kind for _, kind in inspect.getmembers(optional, inspect.isclass) if kind.__module__ == optional.__name__]


def test_base_class_has_at_most_16_methods() -> None:
    methods = [name for name, it in vars(VirtioDevice).items() if inspect.isfunction(it) or isinstance(it, property)]
    assert len(methods) <= 16


class OneLine(VirtioDevice):
    backend_name = "vhost"


class AllLines(VirtioDevice):
    backend_name = "far"
    backend_optional = True

    @property
    def backend_path(self) -> Path:
        return Path("/run/far.sock")

    @property
    def backend_text(self) -> str:
        return f"far {self.name}"


class Record(VirtioDevice):
    placement = Placement(backend="near", text="a thing")


@pytest.mark.parametrize(
    ("device", "placement"),
    [
        (VirtioDevice, Placement(backend="vbs-u", path=None, optional=False, text="vbs-u")),
        (OneLine, Placement(backend="vhost", path=None, optional=False, text="vhost")),
        (AllLines, Placement(backend="far", path=Path("/run/far.sock"), optional=True, text="far thing-3:0")),
        (Record, Placement(backend="near", path=None, optional=False, text="a thing")),
    ],
    ids=["nothing", "one line", "attributes", "record"],
)
def test_device_says_its_placement(device: type[VirtioDevice], placement: Placement) -> None:
    assert device(CONTEXT).placement == placement


def members(protocol: type) -> set[str]:
    return {
        name
        for name, it in vars(protocol).items()
        if not name.startswith("_") and (callable(it) or hasattr(it, "fget"))
    }


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_optional_protocol_is_one_method_that_a_built_in_device_has_and_the_base_has_not(protocol: type) -> None:
    (name,) = members(protocol)
    having = [device for device in (BlkDevice, ConsoleDevice, NetDevice) if hasattr(device, name)]
    # FeatureJudge: ours need no more than the table says. NativePlane: the echo of the test kit has it.
    assert having or protocol in (optional.FeatureJudge, optional.NativePlane)
    assert not hasattr(VirtioDevice, name)
