"""The host bridges."""

import pytest

from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices import hostbridge
from tests.pci.parts import Setup

TYPES = {t.name: t for t in hostbridge.acrn_dm_device_types()}


@pytest.mark.parametrize(("name", "ids"), [("hostbridge", 0x1275_1275), ("amd_hostbridge", 0x7432_1022)])
def test_ids_and_class(name: str, ids: int) -> None:
    function = TYPES[name].create(TYPES[name].config(), DeviceContext(bdf=Bdf(slot=0), kind=name))
    setup = Setup(function)
    assert setup.read(function, 0) == ids
    assert setup.read(function, 8) == 0x0600_0000
    assert setup.read(function, 0x3D, 1) == 0, "no interrupt pin"


def test_is_a_pci_express_root_port_without_extended_capabilities() -> None:
    kind = TYPES["hostbridge"]
    function = kind.create(kind.config(), DeviceContext(bdf=Bdf(slot=0), kind="hostbridge"))
    setup = Setup(function)
    at = setup.capability(function, 0x10)
    assert setup.read(function, at + 2, 2) == 0x42
    assert setup.read(function, at + 0x0C) == 0x411
    assert setup.read(function, at + 0x12, 2) == 0x11
    assert setup.read(function, 0x100) == 0
