"""Our own served devices behind ``vhost-user-device``: to a driver they are what they are without it."""

import struct
from pathlib import Path

import acrn_dm_gpio
import acrn_dm_input
import acrn_dm_rng
import pytest

from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.user_rig import eventually
from tests.devices.vhost_user.foreign_rig import SLOT, foreign, served

KINDS = {
    "gpio": ("virtio-gpio", "line=button,line=led,count=4", "id=41,queues=2,config=8"),
    "input": ("virtio-input", "kind=tablet,name=Board", "id=18,queues=2,config=136"),
    "rng": ("virtio-rnd", "", "id=4,queues=1"),
}
PLUGINS = [acrn_dm_gpio, acrn_dm_input, acrn_dm_rng]
GET_NAMES = 1
SELECT_NAME = 1  # VIRTIO_INPUT_CFG_ID_NAME


def seen(machine: SimMachine, function: PciFunction) -> dict[str, object]:
    """What makes a driver choose the device and use it as it does."""
    assert isinstance(function, VirtioPci)
    driver = machine.driver(SLOT)
    size = function.device.config_size
    return {
        "features": driver.registers.offered() & ~(1 << 27),  # ANY_LAYOUT, of transitional devices
        "queues": len(function.device.queue_sizes),
        "config": function.data_plane.backend.read_config(0, size) if size else b"",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_driver_finds_what_it_finds_without_another_process(kind: str, tmp_path: Path) -> None:
    name, text, options = KINDS[kind]
    with SimMachine(plugins=PLUGINS) as machine:
        alone = seen(machine, machine.add(name, text, slot=SLOT))
    path = tmp_path / "s"
    with served(f"{name},{text}".removesuffix(","), path), SimMachine(plugins=PLUGINS) as machine:
        assert seen(machine, machine.add("vhost-user-device", f"{options},socket={path}", slot=SLOT)) == alone


def test_requests_of_a_driver_are_answered_by_the_process(tmp_path: Path) -> None:
    name, text, options = KINDS["gpio"]
    path = tmp_path / "s"
    with served(f"{name},{text}", path), SimMachine() as machine:
        driver = foreign(machine, options, path)
        for _ in range(2):  # and again after a reset
            driver.start()
            queue = driver.queue(0)
            queue.send([struct.pack("<HHI", GET_NAMES, 0, 0)], [14])
            queue.kick()
            eventually(machine, lambda queue=queue: queue.ring.used_idx() == 1)  # type: ignore[misc]
            assert [c.data for c in queue.completed()] == [b"\0button\0led\0\0\0"]
            driver.reset()
        assert machine.failures == []


def test_what_a_driver_writes_into_the_configuration_chooses_what_it_reads(tmp_path: Path) -> None:
    name, text, options = KINDS["input"]
    path = tmp_path / "s"
    with served(f"{name},{text}", path), SimMachine() as machine:
        driver = foreign(machine, options, path)
        driver.start()
        driver.registers.write_config(0, 1, SELECT_NAME)
        size = driver.read_config(2, 1)[0]
        assert driver.read_config(8, size) == b"Board"
        driver.reset()
        assert driver.read_config(0, 3) == bytes(3)
