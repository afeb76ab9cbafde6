"""Machines with boot firmware: the chips that it needs, and what it is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.files import KeptFiles
from acrn_dm.contract.config import DeviceSpec, Firmware, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.boot_source import boot_disks
from acrn_dm.machine.build import build
from acrn_dm.machine.firmware import with_chips
from acrn_dm.machine.machine import Machine
from acrn_dm.pci.bar import BarKind
from acrn_dm.pci.bus import PciBus
from tests.boot.samples import make_firmware
from tests.pci.parts import Probe

GIB = 1 << 30
BRIDGE = DeviceSpec(bdf=Bdf(slot=0), kind="hostbridge")
LPC = DeviceSpec(bdf=Bdf(slot=1), kind="lpc")


@pytest.fixture
def qemus(tmp_path: Path) -> Firmware:
    (tmp_path / "qemus").write_bytes(make_firmware())
    return Firmware(image=tmp_path / "qemus")


@pytest.fixture
def acrns(tmp_path: Path) -> Firmware:
    (tmp_path / "acrns").write_bytes(make_firmware(for_qemu=False))
    return Firmware(image=tmp_path / "acrns")


def kinds(firmware: Firmware | None, *devices: DeviceSpec) -> dict[str, str]:
    config = with_chips(MachineConfig(firmware=firmware, devices=devices), KeptFiles())
    return {str(spec.bdf): spec.kind for spec in config.devices}


@pytest.mark.parametrize("bridge", ["hostbridge", "amd_hostbridge", "i440fx"])
def test_firmware_made_for_qemu_gets_its_chips(qemus: Firmware, bridge: str) -> None:
    given = DeviceSpec(bdf=Bdf(slot=0), kind=bridge)
    assert kinds(qemus, given, LPC) == {"0:0.0": "i440fx", "0:1.0": "lpc", "0:1.3": "piix4-pm"}


def test_firmware_made_for_qemu_needs_no_host_bridge_on_the_command_line(qemus: Firmware) -> None:
    assert kinds(qemus) == {"0:0.0": "i440fx", "0:1.3": "piix4-pm"}


def test_acrns_firmware_keeps_acrns_host_bridge(acrns: Firmware) -> None:
    assert kinds(acrns, BRIDGE, LPC) == {"0:0.0": "hostbridge", "0:1.0": "lpc"}


def test_machine_without_firmware_stays_as_it_is() -> None:
    assert kinds(None, BRIDGE) == {"0:0.0": "hostbridge"}


@pytest.mark.parametrize("place", [Bdf(slot=0), Bdf(slot=1, func=3)], ids=str)
def test_another_device_in_the_chips_place_is_named(qemus: Firmware, place: Bdf) -> None:
    disk = DeviceSpec(bdf=place, kind="virtio-blk", text="/disk")
    with pytest.raises(ConfigError, match=rf"-s: '{place},virtio-blk': .* move virtio-blk elsewhere"):
        with_chips(MachineConfig(firmware=qemus, devices=(disk,)), KeptFiles())


@pytest.mark.parametrize("writeback", [False, True])
def test_variables_that_will_not_be_kept_are_said(
    qemus: Firmware, caplog: pytest.LogCaptureFixture, writeback: bool
) -> None:
    with_chips(MachineConfig(firmware=attrs.evolve(qemus, writeback=writeback)), KeptFiles())
    assert ("no variables are kept" in caplog.text) is writeback


def test_dry_run_shows_the_firmware(machines: "Machines", qemus: Firmware, tmp_path: Path) -> None:
    machine = machines.build(firmware=qemus, kernel=tmp_path / "kernel")
    assert machine.describe().boot == f"firmware {qemus.image}, kernel {tmp_path / 'kernel'}"


class Machines:
    def __init__(self) -> None:
        self.made: list[Machine] = []

    def build(self, **config: Any) -> Machine:
        plugins = make_plugin_manager(entry_points=False)
        self.made.append(build(MachineConfig(hypervisor="sim", **config), plugins, threads=False))
        return self.made[-1]


@pytest.fixture
def machines() -> Iterator[Machines]:
    machines = Machines()
    yield machines
    for machine in machines.made:
        machine.close()


def disk(path: Path, slot: int, func: int = 0, *, bootable: bool = False) -> DeviceSpec:
    path.write_bytes(bytes(1 << 20))
    return DeviceSpec(bdf=Bdf(slot=slot, func=func), kind="virtio-blk", text=str(path), bootable=bootable)


def test_disks_are_looked_at_by_slot_and_marked_ones_first(machines: Machines, tmp_path: Path) -> None:
    disks = [disk(tmp_path / str(i), slot, func, bootable=slot == 9) for i, (slot, func) in enumerate([(3, 0), (9, 0)])]
    machine = machines.build(kernel=tmp_path, devices=(BRIDGE, *disks))
    assert boot_disks(machine.config, machine.devices.bus) == ((9, 0), (3, 0))
    assert machine.boot_source.plan().disks == ((9, 0), (3, 0))


class Bars:
    """A bus of one function with 64-bit BARs at *bases*."""

    def __init__(self, *bases: int) -> None:
        self.function = Probe(3)
        for i, base in enumerate(bases):
            bar = self.function.add_bar(2 * i, 16384, BarKind.MEM64, self)
            bar.base = base

    @property
    def functions(self) -> tuple[Probe, ...]:
        return (self.function,)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


@pytest.mark.parametrize(
    ("bases", "window"),
    [
        ((), (256 * GIB, 512 * GIB - 1)),
        ((0x8000_0000,), (256 * GIB, 512 * GIB - 1)),
        ((300 * GIB, 301 * GIB), (256 * GIB, 512 * GIB - 1)),
        ((896 * GIB + 0x4000, 899 * GIB), (896 * GIB, 900 * GIB - 1)),
        ((32 * GIB, 300 * GIB), (32 * GIB, 301 * GIB - 1)),
        ((512 * GIB - 4096,), (511 * GIB, 513 * GIB - 1)),
    ],
)
def test_window_for_64_bit_bars_holds_them_where_firmware_put_them(
    bases: tuple[int, ...], window: tuple[int, int]
) -> None:
    bus: Any = Bars(*bases)
    assert PciBus.mmio64_window(bus) == window


def test_machine_answers_where_firmware_asks(machines: Machines, qemus: Firmware, tmp_path: Path) -> None:
    machine = machines.build(firmware=qemus, devices=(BRIDGE, LPC, disk(tmp_path / "disk", 3)))
    machine.realize()
    machine.firmware.prepare(machine.boot_source.plan)
    machine.dispatch.pio.write(0xCF8, 4, 0x8000_0000)
    assert machine.dispatch.pio.read(0xCFE, 2) == 0x1237
    machine.dispatch.pio.write(0x510, 2, 0)
    assert bytes(machine.dispatch.pio.read(0x511, 1) for _ in range(4)) == b"QEMU"
    machine.dispatch.pio.write(0x64, 1, 0xAE)
    machine.dispatch.pio.write(0x60, 1, 0xEE)
    assert machine.dispatch.pio.read(0x60, 1) == 0xEE
