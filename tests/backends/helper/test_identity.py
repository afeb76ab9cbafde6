"""A device in a process of its own is to its driver the device that it is without."""

from pathlib import Path

import pytest

from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.helper.helper_rig import sim

ROWS = [
    ("virtio-blk", "{disk}"),
    ("virtio-blk", "{disk},ro,packed=off"),
    ("virtio-console", "file:out={out},file:more={out}2"),
    ("virtio-rnd", ""),  # without a configuration space
]


def seen(machine: SimMachine, function: PciFunction) -> dict[str, object]:
    """All that a driver finds out about *function* before it uses it."""
    assert isinstance(function, VirtioPci)
    driver = machine.driver(3)
    registers = [function.config_read(offset, 4) for offset in range(0, 256, 4)]
    size = function.device.config_size
    return {
        "registers": registers,
        "features": driver.registers.offered(),
        "queues": list(function.device.queue_sizes),
        "config": function.data_plane.backend.read_config(0, size) if size else b"",
    }


@pytest.mark.parametrize(("kind", "options"), ROWS, ids=lambda value: value)
def test_driver_finds_the_very_same_device(kind: str, options: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    text = options.format(disk=disk, out=tmp_path / "out")
    found = []
    for more in ("", ",process=on"):
        with sim() as machine:
            function = machine.add(kind, (text + more).removeprefix(","), slot=3)
            found.append(seen(machine, function))
    assert found[0] == found[1]
