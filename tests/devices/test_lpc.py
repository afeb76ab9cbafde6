"""The LPC bridge."""

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.devices import lpc
from tests.pci.parts import Probe, Setup

(KIND,) = lpc.acrn_dm_device_types()
LINKS = (0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B)


def make(slot: int = 1, bus: int = 0) -> lpc.Lpc:
    bridge = KIND.create(KIND.config(), DeviceContext(bdf=Bdf(bus=bus, slot=slot), kind="lpc"))
    assert isinstance(bridge, lpc.Lpc)
    return bridge


def test_ids_and_class() -> None:
    bridge = make()
    setup = Setup(bridge)
    assert setup.read(bridge, 0) == 0x7000_8086
    assert setup.read(bridge, 8) == 0x0601_0000


def test_links_are_disabled_until_a_pin_uses_them() -> None:
    bridge = make()
    setup = Setup(bridge)
    assert [setup.read(bridge, r, 1) for r in LINKS] == [0x80] * 8


def test_links_show_where_pins_lead() -> None:
    bridge, functions = make(), [Probe(slot) for slot in (3, 4)]
    for function in functions:
        function.use_intx()
    setup = Setup(bridge, *functions)
    assert [setup.read(bridge, r, 1) for r in LINKS[:2]] == [setup.read(f, 0x3C, 1) for f in functions]
    assert setup.read(bridge, LINKS[2], 1) == 0x80


def test_link_registers_keep_their_bits_and_come_back_at_reset() -> None:
    bridge = make()
    setup = Setup(bridge)
    for register in LINKS:
        setup.write(bridge, register, 0x7B, 1)
    assert [setup.read(bridge, r, 1) for r in LINKS] == [0x0B] * 8
    assert setup.read(bridge, 0x64) == 0
    with bridge.lock:
        bridge.reset()
    assert [setup.read(bridge, r, 1) for r in LINKS] == [0x80] * 8


def test_second_bridge_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="one lpc only"):
        Setup(make(1), make(2))


def test_bridge_behind_another_bus_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="bus 0"):
        make(bus=1)
