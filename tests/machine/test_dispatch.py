"""acrn_dm.machine.dispatch: a line about an access that failed says which device of whose plugin it was, and where."""

import logging
from collections.abc import Iterator

import attrs
import pytest

from acrn_dm import BarKind, DeviceContext, DeviceType, PciFunction, hookimpl
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import BUILTINS, make_plugin_manager
from acrn_dm.contract.types import Bdf, Provenance
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine

BLAMED = "odd-3:1 (plugin odd (acrn-dm-odd 4.2))"
ECAM = 0xE000_0000


@attrs.frozen(kw_only=True)
class NoOptions:
    pass


class Odd(PciFunction):
    """Raises whatever the guest does."""

    def __init__(self, config: NoOptions, context: DeviceContext) -> None:
        super().__init__(context, vendor=0x1234, device=1, class_code=0xFF0000)
        self.add_bar(0, 256, BarKind.MEM32, self)

    def read(self, offset: int, size: int) -> int:
        raise ZeroDivisionError("boom")

    def write(self, offset: int, size: int, value: int) -> None:
        raise ZeroDivisionError("boom")

    def config_read(self, offset: int, size: int) -> int:
        raise ZeroDivisionError("boom")


class Plugin:
    @hookimpl
    def acrn_dm_device_types(self) -> list[DeviceType]:
        return [DeviceType(name="odd", summary="odd", config=NoOptions, create=Odd)]


@pytest.fixture
def machine() -> Iterator[Machine]:
    names = ("hypervisors.sim", "virtio.vbs_u")
    plugins = make_plugin_manager(builtins={name: BUILTINS[name] for name in names}, entry_points=False)
    plugins.register(Plugin(), Provenance(plugin="odd", distribution="acrn-dm-odd", version="4.2"))
    device = DeviceSpec(bdf=Bdf(slot=3, func=1), kind="odd")
    made = build(MachineConfig(hypervisor="sim", devices=(device,)), plugins, threads=False)
    made.realize()
    yield made
    made.close()


@pytest.mark.parametrize("size", [1, 4])
def test_failed_register_access_names_device_plugin_slot_and_bar(
    machine: Machine, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    base = machine.devices.functions[0].bars[0].base
    with caplog.at_level(logging.ERROR):
        assert machine.dispatch.mmio_read(base + 8, size) == (1 << 8 * size) - 1
    assert f"reading {size} bytes at mmio {base + 8:#x} ({BLAMED} BAR0+0x8): boom" in caplog.text


@pytest.mark.parametrize("way", ["ports", "ecam", "decoded"])
def test_failed_configuration_access_names_device_plugin_slot_and_register(
    machine: Machine, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    function = 3 << 3 | 1
    with caplog.at_level(logging.ERROR):
        if way == "ports":
            machine.dispatch.pio_write(0xCF8, 4, 1 << 31 | function << 8 | 0x40)
            machine.dispatch.pio_read(0xCFC, 4)
        elif way == "ecam":
            machine.dispatch.mmio_read(ECAM + (function << 12) + 0x40, 4)
        else:
            machine.dispatch.pci_config_read(function, 0x40, 4)
    assert f"{BLAMED} at 0:3.1" in caplog.text
    assert "0x40" in caplog.text
