"""The two chips by which firmware made for QEMU knows its platform."""

from typing import Any

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices import i440fx
from tests.pci.parts import Setup

KINDS = {kind.name: kind for kind in i440fx.acrn_dm_device_types()}


def make(name: str, slot: int, func: int = 0) -> Any:
    kind = KINDS[name]
    return kind.create(kind.config(), DeviceContext(bdf=Bdf(slot=slot, func=func), kind=name))


def test_host_bridge_has_the_440fxs_ids() -> None:
    bridge = make("i440fx", 0)
    setup = Setup(bridge)
    assert setup.read(bridge, 0) == 0x1237_8086
    assert setup.read(bridge, 8) == 0x0600_0000


def test_power_management_says_where_its_registers_are_and_that_they_answer() -> None:
    function = make("piix4-pm", 1, 3)
    setup = Setup(function)
    assert setup.read(function, 0) == 0x7113_8086
    assert setup.read(function, 0x40) == 0x401
    assert setup.read(function, 0x80, 1) == 1


def test_power_management_registers_cannot_be_moved() -> None:
    function = make("piix4-pm", 1, 3)
    setup = Setup(function)
    setup.write(function, 0x40, 0xB001)
    setup.write(function, 0x80, 0, 1)
    assert setup.read(function, 0x40) == 0x401
    assert setup.read(function, 0x80, 1) == 1


def test_power_management_elsewhere_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"0:1\.3"):
        make("piix4-pm", 2, 3)
